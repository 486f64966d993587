"""Forecasts against measured latencies of vLLM: reading cases, asking the estimator, scoring the answers."""
