"""Adapter slots by hand, for the projections of Llama-3.1-8B."""

from __future__ import annotations

import pytest

from stowage.memory.layout import RankLayout
from stowage.memory.lora import lora_bytes
from stowage.memory.shape import LoraSettings
from tests.memory.support import H100, ledger_of, version
from tests.model.support import published

LLAMA = "meta-llama--Llama-3.1-8B-Instruct"
HIDDEN, KEYS, INNER, LAYERS, VOCABULARY = 4096, 1024, 14336, 32, 128256


def by_hand(rank: int, ranks: int) -> int:
    """Give the bytes of one slot: A for each module that is fused, B for the rows of all of them.

    Embedding and output head are whole on every rank.
    """
    queries = (HIDDEN + 2 * KEYS) // ranks + 3 * HIDDEN
    outputs = HIDDEN + HIDDEN // ranks
    up = 2 * INNER // ranks + 2 * HIDDEN
    down = HIDDEN + INNER // ranks
    return 2 * rank * (LAYERS * (queries + outputs + up + down) + 2 * (HIDDEN + VOCABULARY))


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    ("slots", "rank"), [pytest.param(1, 16, id="one slot"), pytest.param(4, 64, id="four")]
)
def test_slots_of_all_projections_and_of_the_head(ranks: int, slots: int, rank: int) -> None:
    found = lora_bytes(published(LLAMA), RankLayout(ranks, 1, 0), LoraSettings(slots, rank), version())
    assert found == slots * by_hand(rank, ranks)


def test_stages_hold_the_slots_of_their_own_layers() -> None:
    profile, settings = published(LLAMA), LoraSettings(1, 8)
    stages = [lora_bytes(profile, RankLayout(1, 2, stage), settings, version()) for stage in (0, 1)]
    assert sum(stages) == by_hand(8, 1)
    assert stages[0] == stages[1]


def test_up_to_0_11_adapters_bring_tokens_of_their_own() -> None:
    """256 in each slot: rows of embedding and head, and of their adapters, and vectors beside both."""
    settings, layout = LoraSettings(2, 16), RankLayout(1, 1, 0)
    found = lora_bytes(published(LLAMA), layout, settings, version("0.11.0"))
    rows = 2 * 256 * 16 + 4 * 256 * HIDDEN
    assert found == 2 * (by_hand(16, 1) + 2 * rows)


@pytest.mark.parametrize(
    ("release", "wrapped"),
    [
        pytest.param("0.19.0", False, id="Qwen3 adapts its layers alone"),
        pytest.param("0.20.0", True, id="and later its embedding too"),
    ],
)
def test_embeddings_take_adapters_by_architecture_and_release(release: str, wrapped: bool) -> None:
    profile, settings = published("Qwen--Qwen3-32B"), LoraSettings(1, 16)
    plain = lora_bytes(profile, RankLayout(1, 1, 0), settings, version("0.19.0"))
    found = lora_bytes(profile, RankLayout(1, 1, 0), settings, version(release))
    assert found - plain == (2 * 16 * 2 * (5120 + 151936) if wrapped else 0)


def test_the_log_counts_slots_as_weights() -> None:
    plain = ledger_of(published(LLAMA), H100, "0.26.0")
    adapted = ledger_of(published(LLAMA), H100, "0.26.0", lora=LoraSettings(1, 16))
    assert adapted.weights_allocated_bytes - plain.weights_allocated_bytes == by_hand(16, 1)
