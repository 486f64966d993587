"""Stowage: a Kubernetes operator that sizes, places, launches and checks vLLM deployments."""

__version__ = "0.1.0"
