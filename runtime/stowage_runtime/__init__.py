"""The Stowage runtime: the agent that starts, watches, reports on and drains vLLM inside a pod.

It becomes a zipapp that any vLLM image can run, so it may import nothing but the standard library, must keep
to what Python 3.9 understands, and never imports ``stowage``. The operator imports
``stowage_runtime.contract`` only.
"""
