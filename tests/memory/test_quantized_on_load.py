"""Quantising a plain checkpoint while it is loaded: names by release, what is held, and what is refused."""

from __future__ import annotations

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.budget import ledger
from stowage.memory.layout import RankLayout
from stowage.memory.ledger import Ledger
from stowage.memory.quantized.kernels import Kernels
from stowage.memory.quantized.on_load import load_peak_holds_model, quantized_on_load
from stowage.memory.weights import rank_weights
from stowage.model.profile import ModelProfile
from tests.memory.support import GIB, H100, gpu, shape, version
from tests.model.support import TINY, profile_of, published

PLAIN = profile_of(TINY)


def loaded(profile: ModelProfile, method: str, release: str) -> ModelProfile:
    """Quantise a profile that the release can quantise."""
    answer = quantized_on_load(profile, method, version(release))
    assert isinstance(answer, ModelProfile), answer
    return answer


@pytest.mark.parametrize(
    ("folder", "ranks", "method", "kernels", "gib"),
    [
        pytest.param(
            "meta-llama--Meta-Llama-3-8B", 1, "bitsandbytes", Kernels(75, (0, 8, 5)), 5.3128,
            id="Llama-3-8B nf4 on a T4, vllm#5569",
        ),
        pytest.param(
            "mistralai--Mistral-Large-Instruct-2407", 4, "fp8", Kernels(90, (0, 8, 5)), 28.7698,
            id="Mistral-Large fp8 tp4, vllm#8881",
        ),
    ],
)  # fmt: skip
def test_weights_after_loading_are_those_in_the_log(
    folder: str, ranks: int, method: str, kernels: Kernels, gib: float
) -> None:
    profile = loaded(published(folder), method, "0.8.5")
    weights = rank_weights(profile, RankLayout(ranks, 1, 0), "float16", None, kernels)
    assert weights.block_bytes / GIB == pytest.approx(gib, abs=1e-3)


@pytest.mark.parametrize(
    ("method", "release", "linear", "strategy"),
    [
        pytest.param("fp8", "0.30.0", "fp8", "tensor", id="fp8 up to 0.30"),
        pytest.param("fp8_per_tensor", "0.32.0", "fp8", "tensor", id="fp8_per_tensor"),
        pytest.param("fp8_per_block", "0.20.0", "fp8", "block", id="fp8_per_block"),
        pytest.param("fp8_per_channel", "0.24.0", "fp8", "channel", id="fp8_per_channel"),
        pytest.param("mxfp8", "0.32.0", "mxfp8", "group", id="mxfp8"),
        pytest.param(
            "int8_per_channel_weight_only", "0.32.0", None, None, id="8-bit experts leave linear layers alone"
        ),
    ],
)
def test_linear_layers_get_this_layout(
    method: str, release: str, linear: str | None, strategy: str | None
) -> None:
    profile = loaded(PLAIN, method, release)
    schemes = {
        tensor.linear.scheme
        for layer in profile.layers
        for tensor in layer.tensors
        if tensor.linear is not None
    }
    assert {(scheme.weight, scheme.strategy) if scheme else (None, None) for scheme in schemes} == {
        (linear, strategy)
    }
    heads = [tensor.linear for tensor in profile.outer_tensors if tensor.linear is not None]
    assert [head.scheme for head in heads] == [None]


def test_experts_are_quantised_and_their_router_is_not() -> None:
    profile = loaded(published("Qwen--Qwen3-30B-A3B"), "int8_per_channel_weight_only", "0.32.0")
    roles = {
        tensor.linear.role: tensor.linear.scheme.weight if tensor.linear.scheme else None
        for tensor in profile.layers[0].tensors
        if tensor.linear is not None
    }
    assert roles == {"linear": None, "router": None, "experts": "int8"}


@pytest.mark.parametrize(
    ("method", "release", "hint"),
    [
        pytest.param("fp8", "0.31.0", "fp8_per_tensor", id="fp8 has another name from 0.31 on"),
        pytest.param("fp8_per_tensor", "0.19.1", "Methods are", id="which older engines do not know"),
        pytest.param("bitsandbytes", "0.28.0", "0.27.1", id="bitsandbytes is gone"),
        pytest.param("int3", "0.32.0", "fp8_per_tensor", id="a name that nobody knows"),
    ],
)
def test_what_a_release_does_not_have_is_refused(method: str, release: str, hint: str) -> None:
    answer = quantized_on_load(PLAIN, method, version(release))
    assert isinstance(answer, Refusal)
    assert answer.reason.value == "UnsupportedQuantization"
    assert hint in answer.hint


AWQ = profile_of(TINY, quantization_config={"quant_method": "awq", "bits": 4, "group_size": 64})


@pytest.mark.parametrize("name", ["awq", "awq_marlin", "auto_awq"])
def test_a_checkpoint_keeps_its_own_method_under_any_of_its_names(name: str) -> None:
    assert quantized_on_load(AWQ, name, version()) == AWQ


def test_a_method_that_contradicts_the_checkpoint_is_refused() -> None:
    answer = quantized_on_load(AWQ, "fp8", version("0.20.0"))
    assert isinstance(answer, Refusal)
    assert answer.reason.value == "PinConflict"


def test_without_a_method_the_profile_is_the_same() -> None:
    assert quantized_on_load(PLAIN, None, version()) == PLAIN


@pytest.mark.parametrize(
    ("release", "whole"),
    [
        pytest.param("0.13.0", True, id="older engines first load the whole model"),
        pytest.param("0.20.0", False, id="newer ones go layer by layer"),
    ],
)
def test_what_loading_needs_is_said(release: str, whole: bool) -> None:
    note = loaded(PLAIN, "fp8", release).notes[-1]
    assert ("whole model" in note) is whole
    assert load_peak_holds_model("fp8", version(release)) is whole


def test_the_ledger_quantises_while_loading() -> None:
    profile = published("meta-llama--Llama-3.1-8B-Instruct")
    sizes = []
    for method in (None, "fp8_per_tensor"):
        answer = ledger(profile, shape(quantization=method), H100, version())
        assert isinstance(answer, Ledger), answer
        sizes.append(answer.weights_bytes)
    assert 0.55 < sizes[1] / sizes[0] < 0.6


@pytest.mark.parametrize(
    ("release", "refused"),
    [
        pytest.param("0.13.0", True, id="61 GiB in 16 bits do not fit on 44 GiB"),
        pytest.param("0.30.0", False, id="layer by layer they do"),
    ],
)
def test_the_plain_weights_must_fit_for_a_moment(release: str, refused: bool) -> None:
    asked = shape(quantization="fp8", max_model_len=4096, enforce_eager=True)
    answer = ledger(published("Qwen--Qwen3-32B"), asked, gpu(44.4, "NVIDIA-L40S", (8, 9)), version(release))
    if not refused:
        assert isinstance(answer, Ledger), answer
        return
    assert isinstance(answer, Refusal)
    assert answer.reason.value == "InsufficientMemory"
    assert "61.0 GiB" in answer.message
