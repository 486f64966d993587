"""What vLLM itself keeps as the state of a recurrent layer: bytes by tensor parallel size and guessed tokens.

Run in an environment with vLLM's CPU build, like `parameter_bytes.py`; it imports nothing from this project:

    python state_bytes.py ../../fixtures/models/MODEL … > states.json

Prints a list with one row for each model, parallel size and number of guessed tokens. Shapes and dtypes are asked of
the model's class, the way `Platform._align_hybrid_block_size` does.
"""

# mypy: ignore-errors
from __future__ import annotations

import json
import os
import sys
from math import prod
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch
from vllm import __version__
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.models import ModelRegistry
from vllm.utils.torch_utils import get_dtype_size

# Some CPUs would have the state kept in 32 bits whatever the model asks for; GPUs do not.
torch.cpu._is_avx512_bf16_supported = lambda: False

LAYOUTS = ((1, 0), (2, 0), (4, 3), (8, 0))


def rows(folder: Path) -> list[dict]:
    """Give the bytes of one state for each layout that the model's heads can be divided by."""
    arguments = EngineArgs(
        model=str(folder),
        load_format="dummy",
        skip_tokenizer_init=True,
        enforce_eager=True,
        kv_cache_memory_bytes=1 << 30,
        hf_overrides={"quantization_config": None},
    )
    config = arguments.create_engine_config()
    model, _ = ModelRegistry.resolve_model_cls(
        config.model_config.architecture, model_config=config.model_config
    )
    found = []
    for ranks, drafts in LAYOUTS:
        asked = SimpleNamespace(
            model_config=config.model_config,
            cache_config=config.cache_config,
            parallel_config=SimpleNamespace(tensor_parallel_size=ranks),
            speculative_config=SimpleNamespace(num_speculative_tokens=drafts) if drafts else None,
            num_speculative_tokens=drafts,
        )
        if drafts and model.__name__.startswith("Lfm2"):
            continue  # its layers keep inputs of guessed tokens, but the class does not say so
        try:
            shapes = model.get_mamba_state_shape_from_config(asked)
        except AssertionError:
            continue
        dtypes = model.get_mamba_state_dtype_from_config(asked)
        size = sum(prod(shape) * get_dtype_size(dtype) for shape, dtype in zip(shapes, dtypes, strict=True))
        row = {"model": folder.name, "tensor_parallel_size": ranks, "num_speculative_tokens": drafts}
        found.append({**row, "bytes": size, "vllm": __version__})
    return found


if __name__ == "__main__":
    print(json.dumps([row for name in sys.argv[1:] for row in rows(Path(name))], indent=1))
