"""What is served: config.json and safetensors headers turned into one frozen profile.

This layer knows architectures (which tensors a model has, how each may be split, what its attention keeps
per token) and nothing about engines, GPUs or plans. It does no IO: the files were read by somebody else.
Adding an architecture means adding a row to `architectures.py` and, if its tensors are of a new kind, a
builder.
"""
