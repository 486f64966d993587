"""One file per family of architectures: how its config.json is read and which tensors its layers have.

A family turns config.json into an `Anatomy`. Families never look at names of models, only at fields, and a
field that changes memory and that a family does not understand is refused by it, never ignored.
"""
