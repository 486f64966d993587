"""Tiny models that a real engine loads: real config, real tokenizer, real safetensors, a few megabytes.

Why: the path from a model on the Hub to served tokens is proven with real parts, and a published model is too
large and not reachable from every machine. Made from a seed: same arguments, same bytes, so the revision that
the local Hub derives from the content is stable too. Standard library only.
It must never be mistaken for a model that says anything sensible: its weights are noise.
"""

from __future__ import annotations

from e2e.tinymodel.model import FAMILIES, TinyModel

__all__ = ["FAMILIES", "TinyModel"]
