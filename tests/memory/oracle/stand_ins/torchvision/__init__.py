"""Stands in for torchvision, which vLLM's CPU environment leaves out, where only shapes of tensors are asked for.

Classes of multimodal models import image processors, which import torchvision; neither holds a tensor. Every module
and every name below this package exists and does nothing. On the path of the oracles only, never of an engine.
"""

# mypy: ignore-errors
from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock

__version__ = "0.0"


class _AnyModule:
    """Finds every module of the package."""

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, is_package=True) if name.startswith(f"{__name__}.") else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.__getattr__ = __getattr__


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return MagicMock()


sys.meta_path.append(_AnyModule())
