"""The KV cache of published models against vLLM's own layers and manager, on its CPU backend.

`oracle/kv_models` holds, for each model, the caches that its layers ask for in the newest release and what the
manager makes of a number of bytes (`oracle/kv_of_model.py`). Here the same follows from config.json alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.memory.support import NODE, ledger_of
from tests.model.support import published

MODELS = sorted((Path(__file__).parent / "oracle" / "kv_models").glob("*.json"))


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in MODELS])
def test_blocks_and_tokens_of_a_model(path: Path) -> None:
    answer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    entry = ledger_of(
        published(path.stem),
        NODE,
        answer["vllm"],
        max_model_len=answer["max_model_len"],
        max_num_batched_tokens=answer["max_num_batched_tokens"],
        max_num_seqs=answer["max_num_seqs"],
        kv_cache_memory_bytes=answer["kv_bytes"],
    )
    printed = (entry.num_gpu_blocks, entry.kv_tokens, entry.max_concurrency)
    assert printed == (answer["num_blocks"], answer["tokens"], answer["max_concurrency"]), answer["caches"]
