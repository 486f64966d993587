"""Predictions against measured start-ups of vLLM: reading cases, asking the ledger, scoring the answers."""
