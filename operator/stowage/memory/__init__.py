"""The memory ledger: what one rank of a vLLM server holds, by engine version.

Weights and KV cache are exact; activations, CUDA graphs and what lies outside the allocator are estimates
with a stated band. The layer is pure arithmetic over a model profile, a shape, a device and an engine
version. Constants that age live in `release/engine_versions.toml` and `estimates.toml` with their sources; nothing
here may know a model by name.
"""
