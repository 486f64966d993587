"""Drafts whose configuration is not at hand: sized after the model that they draft for, with a wide band."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stowage.memory.assumed_draft import assumed_draft
from stowage.memory.layout import RankLayout
from stowage.memory.ledger import Ledger
from stowage.memory.shape import SpeculativeSettings
from stowage.memory.weights import rank_weights
from stowage.model.profile import LatentAttentionProfile, ModelProfile
from tests.memory.support import GIB, H100, ledger_of
from tests.model.support import attention_of, published

DENSE, EXPERTS, LATENT = "Qwen--Qwen3-32B", "Qwen--Qwen3-30B-A3B", "deepseek-ai--DeepSeek-R1"
MIXED, STATES = "poolside--Laguna-S-2.1", "Qwen--Qwen3.5-27B"


def bytes_of(draft: ModelProfile, ranks: int = 1) -> int:
    return rank_weights(draft, RankLayout(ranks, 1, 0), "bfloat16").tensor_bytes


def drafted(folder: str, method: str) -> ModelProfile:
    draft = assumed_draft(published(folder), method)
    assert draft is not None
    return draft


def test_an_eagle_head_is_one_layer_and_a_projection_of_two_states() -> None:
    hidden, heads, kv_heads, head, inner = 5120, 64, 8, 128, 25600
    attention = hidden * (heads + 2 * kv_heads) * head + heads * head * hidden + 2 * head
    layer = attention + 3 * hidden * inner + 2 * hidden
    assert bytes_of(drafted(DENSE, "eagle")) == 2 * (layer + 2 * hidden * hidden)


def test_an_eagle_3_head_sees_embeddings_beside_states_and_has_a_head_of_its_own() -> None:
    more = bytes_of(drafted(DENSE, "eagle3")) - bytes_of(drafted(DENSE, "eagle"))
    assert more == 2 * (5120 * 80 * 128 + 5120 * 5120 + 32000 * 5120)


def test_a_dflash_draft_has_six_layers_and_copies_of_their_key_and_value_projections() -> None:
    draft = drafted(MIXED, "dflash")
    attention = attention_of(draft)
    copies = 6 * 2 * attention.num_kv_heads * attention.head_dim * draft.hidden_size
    layers = 6 * (bytes_of(drafted(MIXED, "eagle")) // 2 - 2 * draft.hidden_size**2)
    assert draft.num_layers == 6
    assert bytes_of(draft) == 2 * (layers + 6 * draft.hidden_size**2 + copies)


@pytest.mark.parametrize(
    ("folder", "inner"),
    [
        pytest.param(DENSE, 25600, id="a dense model's own feed-forward size"),
        pytest.param(MIXED, 12288, id="that of the dense layers of a mixture"),
        pytest.param(EXPERTS, 6144, id="three times the hidden size where all layers have experts"),
    ],
)
def test_the_feed_forward_size_follows_the_target(folder: str, inner: int) -> None:
    block = drafted(folder, "eagle3").layers[0].feed_forward
    assert block is not None
    assert block.intermediate_size == inner


@pytest.mark.parametrize("folder", [DENSE, MIXED, STATES, "google--gemma-3-27b-it", "openai--gpt-oss-120b"])
def test_drafts_keep_every_token_whatever_the_targets_layers_do(folder: str) -> None:
    attention = attention_of(drafted(folder, "dflash"))
    assert (attention.sliding_window, attention.chunk, attention.shares_cache) == (None, None, False)


def test_drafts_of_latent_attention_are_a_layer_of_the_model() -> None:
    layer = drafted(LATENT, "eagle").layers[0]
    assert isinstance(layer.mixers[0], LatentAttentionProfile)


@pytest.mark.parametrize("method", ["ngram", "suffix", "medusa", "draft_model", "feed_forward"])
def test_methods_without_such_a_draft_get_none(method: str) -> None:
    assert assumed_draft(published(DENSE), method) is None


def ledger_with(folder: str, settings: SpeculativeSettings | None) -> Ledger:
    return ledger_of(published(folder), H100, "0.26.0", speculative=settings, max_num_seqs=32)


def test_an_unknown_draft_takes_weights_and_blocks_and_widens_the_band() -> None:
    plain, drafting = (ledger_with(DENSE, settings) for settings in (None, SpeculativeSettings("eagle3", 3)))
    taken = drafting.weights_bytes - plain.weights_bytes
    assert taken == bytes_of(drafted(DENSE, "eagle3"))
    assert drafting.kv_bytes_per_token * 64 == plain.kv_bytes_per_token * 65
    lower, upper = drafting.kv_cache_band.low, drafting.kv_cache_band.high
    assert upper - lower > taken
    assert plain.kv_cache_band.high - plain.kv_cache_band.low < upper - lower


def test_a_known_draft_is_taken_as_it_is() -> None:
    small = published("Qwen--Qwen3-0.6B")
    known = ledger_with(DENSE, SpeculativeSettings("eagle3", 3, small))
    plain = ledger_with(DENSE, None)
    assert known.weights_bytes - plain.weights_bytes == bytes_of(small)
    band = known.kv_cache_band
    assert band.high - band.low < GIB


def test_a_checkpoints_own_draft_layers_serve_multi_token_prediction_only() -> None:
    own = ledger_with(STATES, SpeculativeSettings("mtp", 1))
    other = ledger_with(STATES, SpeculativeSettings("eagle3", 1))
    plain = ledger_with(STATES, None)
    assert other.weights_bytes - plain.weights_bytes == bytes_of(drafted(STATES, "eagle3"))
    assert plain.weights_bytes < own.weights_bytes
    without = replace(published(STATES), draft_layers=())
    guessed = ledger_of(without, H100, "0.26.0", speculative=SpeculativeSettings("mtp", 1), max_num_seqs=32)
    assert guessed.weights_bytes - plain.weights_bytes == bytes_of(drafted(STATES, "mtp"))
