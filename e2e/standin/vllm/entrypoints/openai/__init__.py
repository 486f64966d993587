"""The OpenAI-compatible server of the stand-in, as `python3 -m vllm.entrypoints.openai.api_server`."""
