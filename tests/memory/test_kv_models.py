"""The KV cache of published models against vLLM's own layers and manager, on its CPU backend.

`oracle/kv_models` holds, for each model, the caches that its layers ask for in the newest release and what the
manager makes of a number of bytes (`oracle/kv_of_model.py`). Here the same follows from config.json alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stowage.memory.setting import Setting
from tests.memory.support import NODE, shape, version
from tests.model.support import published

MODELS = sorted((Path(__file__).parent / "oracle" / "kv_models").glob("*.json"))


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in MODELS])
def test_blocks_and_tokens_of_a_model(path: Path) -> None:
    answer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    asked = shape(
        max_model_len=answer["max_model_len"],
        max_num_batched_tokens=answer["max_num_batched_tokens"],
        max_num_seqs=answer["max_num_seqs"],
    )
    pool = Setting(published(path.stem), asked, NODE, version(answer["vllm"])).kv_pool(0)
    blocks, length = answer["kv_bytes"] // pool.bytes_per_block, answer["max_model_len"]
    printed = (blocks, pool.num_groups, pool.tokens(blocks, length), pool.concurrency(blocks, length))
    expected = (answer["num_blocks"], answer["groups"], answer["tokens"], answer["max_concurrency"])
    assert printed == expected, answer["caches"]
