"""Capacity against vLLM's own KV cache managers, release by release: blocks, tokens, concurrency, bytes needed.

`oracle/kv_cases.json` describes layers, `oracle/kv_golden` what each release makes of them. Here the same layers are
given to the memory model as a profile, so that pages, block sizes and groups are its own work.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.budget import rank_ledgers
from stowage.memory.kv.rules import kv_rules
from stowage.memory.shape import SpeculativeSettings
from stowage.model.profile import (
    AttentionProfile,
    LatentAttentionProfile,
    LayerProfile,
    Mixer,
    ModelProfile,
    MoeProfile,
    StateProfile,
)
from tests.memory.support import A100, H100, shape, version

ORACLE = Path(__file__).parent / "oracle"
CASES: dict[str, dict[str, Any]] = {
    case["name"]: case for case in json.loads((ORACLE / "kv_cases.json").read_text(encoding="utf-8"))
}
ROOMY = 1 << 60
"""Bytes with which nothing but the cache itself decides."""


def golden() -> Iterator[Any]:
    for path in sorted((ORACLE / "kv_golden").glob("*.json")):
        answers = json.loads(path.read_text(encoding="utf-8"))
        for name, answer in answers["answers"].items():
            yield pytest.param(answers["vllm"], CASES[name], answer, id=f"{answers['vllm']} {name}")


def profile_of_case(case: Mapping[str, Any]) -> ModelProfile:
    """Make a model whose layers keep what the case says, and that has no tensors."""
    # With experts, since 0.25 to 0.28 serve other models with the second runner, unlike the golden values.
    experts = MoeProfile(num_experts=8, num_experts_per_tok=2, intermediate_size=64)
    layers = [LayerProfile(tuple(_mixers(names, case["kinds"])), experts, ()) for names in case["order"]]
    drafts = case.get("draft_layers", 0)
    kept = len(layers) - drafts
    return ModelProfile(
        source="test",
        revision=case["name"],
        architecture="TestForCausalLM",
        model_type="test",
        hidden_size=64,
        vocab_size=6400,
        layers=tuple(layers[:kept]),
        outer_tensors=(),
        tie_word_embeddings=False,
        dtype="bfloat16",
        checkpoint_dtype="bfloat16",
        max_model_len=1 << 20,
        default_max_model_len=1 << 20,
        rope=(),
        draft_layers=tuple(layers[kept:]),
    )


def _mixers(names: str, kinds: Mapping[str, dict[str, Any]]) -> Iterator[Mixer]:
    """Give the mixers of one layer; an indexer is a property of the latent attention that has it."""
    indexed = next((kinds[name]["index"] for name in names if "index" in kinds[name]), None)
    for name in names:
        kind = kinds[name]
        if kind["kind"] == "state":
            yield StateProfile(**kind["profile"])
        elif kind["kind"] == "latent" and "index" not in kind:
            yield LatentAttentionProfile(kind["heads"], 512, 128, 64, 128, index_head_dim=indexed)
        elif kind["kind"] != "latent":
            yield _attention(kind)


def _attention(kind: Mapping[str, Any]) -> AttentionProfile:
    size, cross = kind.get("stowage_head_dim", kind["head_dim"]), kind["kind"] == "cross"
    return AttentionProfile(
        num_heads=kind["heads"],
        num_kv_heads=kind["kv_heads"],
        head_dim=size,
        value_dim=None if "stowage_head_dim" in kind else kind.get("value_dim"),
        sliding_window=kind["span"] if kind["kind"] == "window" else None,
        chunk=kind["span"] if kind["kind"] == "chunk" else None,
        source="cross" if cross else "self",
        cross_tokens=kind["span"] if cross else 0,
    )


@pytest.mark.parametrize(("release", "case", "answer"), list(golden()))
def test_capacity_is_what_the_release_prints(
    release: str, case: dict[str, Any], answer: dict[str, Any]
) -> None:
    drafts = case.get("drafts", 0)
    asked = shape(
        tensor_parallel_size=case.get("tensor_parallel_size", 1),
        pipeline_parallel_size=case.get("pipeline_parallel_size", 1),
        decode_context_parallel_size=case.get("decode_context_parallel_size", 1),
        kv_cache_dtype=case.get("kv_cache_dtype", "auto"),
        max_model_len=case["max_model_len"],
        max_num_batched_tokens=case["max_num_batched_tokens"],
        kv_cache_memory_bytes=case["kv_bytes"],
        enable_prefix_caching=case.get("prefix_caching", True),
        disable_hybrid_kv_cache_manager=not case.get("hybrid_manager", True),
        speculative=SpeculativeSettings("mtp", drafts) if drafts else None,
    )
    device = H100 if case.get("device") == "H100" else A100
    profile = profile_of_case(case)
    ledgers = rank_ledgers(profile, asked, device, version(release))
    if "refused" in answer and answer["refused"] != "ValueError":
        assert isinstance(ledgers, Refusal)
        assert release in ledgers.message
        return
    assert not isinstance(ledgers, Refusal), ledgers
    if "refused" in answer:
        assert all(entry.kv_cache_bytes < entry.kv_needed_bytes for entry in ledgers)
        return
    entry = min(ledgers, key=lambda one: one.kv_cache_bytes // one.kv_needed_bytes)
    printed = (entry.num_gpu_blocks, entry.kv_tokens, entry.max_concurrency)
    assert printed == (answer["num_blocks"], answer["tokens"], answer["max_concurrency"])
    bytes_per_block = ROOMY // answer["blocks_in_2_to_the_60_bytes"]
    roomy = rank_ledgers(profile, replace(asked, kv_cache_memory_bytes=ROOMY), device, version(release))
    assert not isinstance(roomy, Refusal)
    assert roomy[0].num_gpu_blocks == answer["blocks_in_2_to_the_60_bytes"]
    null_block = 1 if version(release).null_block_reserved else 0
    needed = max(
        answer["needed_bytes"], (_usable_blocks(release, case, answer) + null_block) * bytes_per_block
    )
    assert max(one.kv_needed_bytes for one in ledgers) == needed


def _usable_blocks(release: str, case: Mapping[str, Any], answer: Mapping[str, Any]) -> int:
    """Give the blocks that a request takes: of the longest context, or by the concurrency that was printed."""
    if kv_rules(version(release)).concurrency == "blocks":
        blocks: float = answer["num_blocks"] / answer["max_concurrency"]
        return round(blocks)
    keeps_all = any(kind["kind"] == "full" for kind in case["kinds"].values())
    return int(-(-case["max_model_len"] // case["block_size"])) if keeps_all else 0
