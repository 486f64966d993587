"""Entry points under the names that vLLM gives them."""
