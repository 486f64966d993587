"""The KV cache: what layers keep, how blocks are shared, and the tokens that result."""
