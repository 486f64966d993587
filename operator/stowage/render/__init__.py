"""The Kubernetes objects of one LLMDeployment, one file per kind.

Every function is pure and deterministic: same input, same bytes. Nothing here knows live objects or the cluster.
"""
