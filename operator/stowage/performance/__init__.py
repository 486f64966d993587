"""The performance model: how long an engine step takes on a GPU, and what a workload then sees.

Pure arithmetic over a model profile, an engine shape, a GPU and a workload. Peaks come from the GPU catalog,
efficiencies from `efficiencies.toml`, each with its source; nothing here may know a model or a GPU by name, read
a clock, or draw a random number.
"""
