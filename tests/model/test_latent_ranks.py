"""Latent attention on ranks: what is whole, what is divided, what is copied after loading, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.constraints import check_parallelism, check_shape
from stowage.memory.context_parallel import check_context_parallelism
from stowage.memory.layout import RankLayout
from stowage.memory.quantized.kernels import Kernels
from stowage.memory.sharding import rank_elements
from stowage.memory.weights import rank_tensors, rank_weights
from stowage.model.dtype import ELEMENT_BYTES
from stowage.model.profile import ModelProfile
from tests.memory.support import GIB, H100, shape
from tests.model.support import config_of, profile_of, published
from tests.model.test_latent import GLM52, LONGCAT, MINICPM, R1, V2_LITE, V32, plain

HOPPER = Kernels(90, (0, 32, 0))
TP8 = RankLayout(8, 1, 0)
COPY = "mla_attn.mla_attn.W_UK_and_W_UV"


def copies(profile: ModelProfile, layout: RankLayout, kernels: Kernels | None) -> list[tuple[int, ...]]:
    """Give the shapes of the expanded copies of kv_b_proj on a rank."""
    return [shape for name, shape in rank_tensors(profile, layout, kernels) if name.endswith(COPY)]


@pytest.mark.parametrize(
    ("data_parallel_size", "expert_parallel", "fits"),
    [
        pytest.param(2, True, True, id="ranks that send different tokens hold the shared expert whole"),
        pytest.param(1, True, False, id="ranks that send the same tokens divide it"),
        pytest.param(2, False, False, id="so they do where experts are divided too"),
    ],
)
def test_a_shared_expert_that_is_whole_may_have_any_size(
    data_parallel_size: int, expert_parallel: bool, fits: bool
) -> None:
    """A size that two ranks do not divide."""
    profile = plain(R1, moe_intermediate_size=2049)
    refusal = check_parallelism(
        profile, 2, 1, data_parallel_size=data_parallel_size, expert_parallel=expert_parallel
    )
    assert (refusal is None) is fits


def test_r1_as_it_is_created() -> None:
    """157.9353 GiB: vLLM's construction of the model without its quantization, rotary table included."""
    weights = rank_weights(plain(R1), TP8, "bfloat16")
    assert weights.tensor_bytes / GIB == pytest.approx(157.9353, abs=5e-5)


def test_r1_in_8_bits_holds_its_copies_besides() -> None:
    created = rank_weights(published(R1), TP8, "bfloat16").tensor_bytes
    loaded = rank_weights(published(R1), TP8, "bfloat16", None, HOPPER).tensor_bytes
    copied = 61 * 512 * (128 // 8) * (128 + 128) * 2
    assert copied / GIB == pytest.approx(0.24, abs=2e-3)
    assert loaded / GIB == pytest.approx(79.55, abs=1e-3)
    scales = created + copied - loaded
    assert 0 <= scales < 100_000


@pytest.mark.parametrize(
    ("quantised", "kernels", "number"),
    [
        pytest.param(True, HOPPER, 61, id="8 bits: one expanded copy a layer"),
        pytest.param(True, None, 0, id="before loading there is none"),
        pytest.param(True, Kernels(90, (0, 6, 6)), 0, id="keys and values were cached before 0.7.1"),
        pytest.param(False, HOPPER, 0, id="16 bits: views of the weight itself"),
    ],
)
def test_expanded_copies(quantised: bool, kernels: Kernels | None, number: int) -> None:
    profile = published(R1) if quantised else plain(R1)
    assert copies(profile, TP8, kernels) == [(16 * 256, 512)] * number


def test_a_layer_with_two_attentions_has_two_copies() -> None:
    block = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    profile = profile_of(config_of(LONGCAT), quantization_config=block)
    assert len(copies(profile, RankLayout(1, 1, 0), HOPPER)) == 2 * 3


def test_only_what_expands_into_heads_is_divided() -> None:
    at_one, at_eight = (dict(rank_tensors(plain(V32), RankLayout(tp, 1, 0))) for tp in (1, 8))
    attention = "model.layers.5.self_attn"
    whole = {name for name, size in at_one.items() if name.startswith(attention) and at_eight[name] == size}
    divided = {name for name in at_one if name.startswith(attention)} - whole
    assert divided == {f"{attention}.{name}.weight" for name in ("q_b_proj", "kv_b_proj", "o_proj")}
    assert at_eight[f"{attention}.q_b_proj.weight"] == (128 // 8 * 192, 1536)
    assert at_eight[f"{attention}.o_proj.weight"] == (7168, 128 // 8 * 128)


def test_the_indexer_norm_is_in_32_bits_and_its_projection_never_quantised() -> None:
    tensors = {
        tensor.name.rpartition("indexer.")[2]: tensor
        for tensor in published(V32).layers[0].tensors
        if ".indexer." in tensor.name
    }
    assert {name for name, tensor in tensors.items() if tensor.element_bytes == 4} == {
        "k_norm.weight",
        "k_norm.bias",
    }
    scheme = {name: tensor.linear and tensor.linear.scheme for name, tensor in tensors.items()}
    assert scheme["wq_b.weight"] is not None
    assert scheme["wk_weights_proj.weight"] is None


@pytest.mark.parametrize(
    ("layout", "rows"),
    [
        pytest.param(RankLayout(2, 1, 0, data_parallel_size=2), 2816, id="experts divided"),
        pytest.param(RankLayout(2, 1, 0, expert_parallel=True), 2816, id="one data-parallel rank"),
        pytest.param(
            RankLayout(1, 1, 0, data_parallel_size=2, expert_parallel=True),
            5632,
            id="one tensor-parallel rank",
        ),
        pytest.param(
            RankLayout(2, 1, 0, data_parallel_size=2, expert_parallel=True),
            5632,
            id="ranks that hand each other parts of the sequence hold shared experts whole",
        ),
    ],
)
def test_shared_experts(layout: RankLayout, rows: int) -> None:
    shapes = dict(rank_tensors(plain(V2_LITE), layout))
    assert shapes["model.layers.1.mlp.shared_experts.gate_up_proj.weight"] == (rows, 2048)


@pytest.mark.parametrize(
    ("folder", "tp", "constructed", "vocabulary", "hidden_size", "tables"),
    [
        pytest.param(GLM52, 4, 6_216_158_224, 38720, 6144, 1048576, id="GLM-5.2 at tp4"),
        pytest.param(V32, 2, 13_653_061_648, 64640, 7168, 2 * 163840, id="DeepSeek-V3.2 at tp2"),
    ],
)
def test_a_draft_layer_is_what_vllm_creates_without_what_it_shares(
    folder: str, tp: int, constructed: int, vocabulary: int, hidden_size: int, tables: int
) -> None:
    """vLLM 0.32.0 builds a head and an embedding for it, then takes the model's; rotary tables are the model's."""
    shared = 2 * vocabulary * hidden_size * 2 + tables * 64 * 2
    (draft,) = plain(folder).draft_layers
    ours = sum(
        rank_elements(tensor, RankLayout(tp, 1, 0)) * (tensor.element_bytes or ELEMENT_BYTES["bfloat16"])
        for tensor in draft.tensors
        if not tensor.after_load and not tensor.name.endswith("_expert_map")
    )
    assert ours == constructed - shared


@pytest.mark.parametrize(
    ("changes", "tp", "words"),
    [
        pytest.param({}, 16, None, id="16 heads over 16 ranks, but not the experts"),
        pytest.param({}, 3, "16 attention heads", id="heads"),
        pytest.param({"moe_intermediate_size": 1404}, 8, "expert size of 1404", id="experts"),
    ],
)
def test_what_tensor_parallelism_must_divide(changes: dict[str, Any], tp: int, words: str | None) -> None:
    answer = check_parallelism(plain(V2_LITE, **changes), tp, 1)
    assert (answer is None) == (words is None)
    if words is not None and isinstance(answer, Refusal):
        assert words in answer.message


def test_whole_experts_help_where_tensor_parallelism_does_not_divide_one() -> None:
    profile = plain(V2_LITE, moe_intermediate_size=1404)
    answer = check_parallelism(profile, 8, 1)
    assert isinstance(answer, Refusal)
    assert "enable_expert_parallel at TP 8" in (answer.hint or "")
    assert check_parallelism(profile, 8, 1, expert_parallel=True) is None


@pytest.mark.parametrize(
    ("folder", "tp", "ranks", "words"),
    [
        pytest.param(V2_LITE, 8, 8, None, id="latent attention: any divisor"),
        pytest.param(V2_LITE, 8, 1, None, id="none"),
        pytest.param(V2_LITE, 8, 3, "does not divide TP 8", id="no divisor"),
        pytest.param(V2_LITE, 8, 0, "does not divide TP 8", id="zero"),
        pytest.param("Qwen--Qwen3-32B", 8, 2, "more than TP 8 for 8", id="every head on one rank only"),
        pytest.param("Qwen--Qwen3-32B", 16, 2, None, id="two ranks share a head"),
        pytest.param("Qwen--Qwen3-32B", 16, 4, "more than the 2 ranks", id="more than share a head"),
        pytest.param("Qwen--Qwen2.5-7B-Instruct", 28, 2, "7 query heads", id="query heads of a key head"),
    ],
)
def test_decode_context_parallel_sizes(folder: str, tp: int, ranks: int, words: str | None) -> None:
    profile = plain(folder)
    answer = check_context_parallelism(profile, tp, ranks)
    assert (answer is None) == (words is None)
    if words is not None and isinstance(answer, Refusal):
        assert words in answer.message


def test_every_stage_of_minicpm3_holds_embedding_and_last_norm() -> None:
    names = {name for name, _ in rank_tensors(plain(MINICPM), RankLayout(1, 3, 1))}
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= names


def test_the_shape_check_knows_decode_context_parallelism() -> None:
    asked = shape(tensor_parallel_size=8, decode_context_parallel_size=3)
    answer = check_shape(plain(V2_LITE), asked, H100)
    assert isinstance(answer, Refusal)
    assert "Decode context parallel size 3" in answer.message
