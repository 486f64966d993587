"""Lossy precision: chosen only where it is allowed, pays and is fast, and only once it has been checked."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.hardware.catalog import find_gpu
from stowage.model.profile import ModelProfile
from stowage.planning.plan import Plan, PlanRequest, PlanResult, plan
from stowage.planning.search.lossy import LossyOption, eight_bit_on_load, helps, lossy_variants, weight_bits
from stowage.planning.search.precision import parameters
from tests.hardware.objects import gpu_node
from tests.model.support import config_of
from tests.planning.builders import (
    chosen,
    inventory_of,
    llama_1b,
    llama_8b,
    llama_70b,
    make_plan,
    mixed_nodes,
    profile_of,
    spec_of,
)

CHECK = {"accuracy": {"promptsRef": {"configMap": "prompts"}}}
EIGHT, FOUR = {"policy": "EightBit", **CHECK}, {"policy": "FourBit", **CHECK}
LENGTHS = {"promptTokens": {"mean": 2000}, "outputTokens": {"mean": 200}}
L4, L40S, A100, H100 = "NVIDIA-L4", "NVIDIA-L40S", "NVIDIA-A100-SXM4-80GB", "NVIDIA-H100-80GB-HBM3"


@cache
def fp8_70b() -> ModelProfile:
    name = "RedHatAI--Llama-3.3-70B-Instruct-FP8-dynamic"
    return profile_of(config_of(name), name.replace("--", "/"))


@cache
def int4_14b() -> ModelProfile:
    name = "casperhansen--deepseek-r1-distill-qwen-14b-awq"
    return profile_of(config_of(name), name.replace("--", "/"))


def result_of(profile: ModelProfile, nodes: list[dict[str, Any]], **parts: Any) -> PlanResult:
    more = {name: parts.pop(name) for name in ("alternatives", "passed", "failed") if name in parts}
    return plan(PlanRequest(spec_of(**parts), profile, 1, **more), inventory_of(nodes))


def contender_of(result: PlanResult) -> Plan:
    assert result.contender is not None, (result.plan, result.refusal)
    return result.contender


@pytest.mark.parametrize(
    "precision",
    [
        pytest.param({}, id="nothing is said"),
        pytest.param({"policy": "Checkpoint", **CHECK}, id="a check without a lossy policy"),
    ],
)
def test_by_default_nothing_lossy_is_chosen_or_waits(precision: dict[str, Any]) -> None:
    result = result_of(llama_70b(), mixed_nodes(), precision=precision)
    assert chosen(result).lossy is None
    assert result.contender is None


def test_a_lossy_plan_that_costs_less_waits_for_its_check() -> None:
    result = result_of(llama_70b(), mixed_nodes(), precision=EIGHT)
    served, contender = chosen(result), contender_of(result)
    assert served.lossy is None
    assert contender.lossy is not None
    assert (contender.cost_per_hour or 0) < 0.95 * (served.cost_per_hour or 0)
    assert contender.digest() != served.digest()
    assert contender.accuracy_key() != served.accuracy_key()


@pytest.mark.parametrize("name", ["digest", "accuracy_key"])
def test_a_check_that_passed_promotes_it(name: str) -> None:
    contender = contender_of(result_of(llama_70b(), mixed_nodes(), precision=EIGHT))
    passed = frozenset({getattr(contender, name)()})
    result = result_of(llama_70b(), mixed_nodes(), precision=EIGHT, passed=passed)
    assert chosen(result).to_json() == contender.to_json()
    assert result.contender is None


def test_a_check_that_failed_rules_it_out_for_good() -> None:
    seen: list[str] = []
    failed: set[str] = set()
    for _ in range(12):
        result = result_of(llama_70b(), mixed_nodes(), precision=EIGHT, failed=frozenset(failed))
        assert chosen(result).lossy is None
        if result.contender is None:
            break
        assert result.contender.lossy not in seen
        seen.append(result.contender.lossy or "")
        failed.add(result.contender.accuracy_key())
    assert len(seen) > 1
    assert result.contender is None


def test_where_nothing_lossless_fits_the_refusal_says_what_waits() -> None:
    result = result_of(llama_70b(), [gpu_node("n", L40S, 2)], precision=EIGHT)
    assert result.plan is None
    assert result.refusal is not None
    assert result.refusal.reason is Reason.ACCURACY_CHECK_PENDING
    contender = contender_of(result)
    assert contender.lossy is not None
    assert contender.lossy in result.refusal.message
    passed = result_of(
        llama_70b(), [gpu_node("n", L40S, 2)], precision=EIGHT, passed=frozenset({contender.digest()})
    )
    assert chosen(passed).lossy == contender.lossy


def test_an_allowed_checkpoint_is_a_contender_by_its_source() -> None:
    source = "hf://RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic"
    option = LossyOption(source, fp8_70b())
    precision = {**EIGHT, "alternatives": [{"source": source}], "kvCache": "bfloat16"}
    on_load = eight_bit_on_load(llama_70b(), version())
    assert on_load is not None
    fails = frozenset(
        {contender_of(result_of(llama_70b(), mixed_nodes(), precision=precision)).accuracy_key()}
    )
    result = result_of(llama_70b(), mixed_nodes(), precision=precision, alternatives=(option,), failed=fails)
    contender = contender_of(result)
    assert contender.model_source == source
    assert contender.lossy == f"fp8 checkpoint {source}"
    assert contender.settings.quantization is None
    assert contender.precision == "fp8"


def test_four_bits_need_the_policy_for_four_bits() -> None:
    option = LossyOption("hf://org/awq", int4_14b())
    for policy, allowed in ((EIGHT, False), (FOUR, True)):
        spec = spec_of(precision={**policy, "alternatives": [{"source": "hf://org/awq"}]})
        found = lossy_variants(llama_8b(), spec, version(), (option,))
        assert any(each.source == "hf://org/awq" for each in found) is allowed


def test_a_pinned_cache_format_is_kept() -> None:
    spec = spec_of(precision={**EIGHT, "kvCache": "bfloat16"})
    assert all(each.kv_cache_dtype is None for each in lossy_variants(llama_8b(), spec, version()))


def version() -> Any:
    found = PlanRequest(spec_of(), llama_8b(), 1).engine()
    assert not isinstance(found, Refusal)
    return found


@pytest.mark.parametrize(
    ("words", "gpu", "expected"),
    [
        pytest.param("fp8 weights", H100, "both", id="fp8 on Hopper"),
        pytest.param("fp8 weights", L4, "both", id="fp8 on Ada"),
        pytest.param("fp8 weights", A100, "decode", id="fp8 is widened on Ampere"),
        pytest.param("fp8 weights", "Tesla-T4", None, id="fp8 on Turing"),
        pytest.param("fp8 KV cache", A100, None, id="no fp8 units for the cache on Ampere"),
        pytest.param("fp8 KV cache", H100, "cache", id="an fp8 cache on Hopper"),
        pytest.param("int8_per_token_head KV cache", A100, "cache", id="an int8 cache on Ampere"),
    ],
)
def test_what_is_fast_depends_on_the_gpu(words: str, gpu: str, expected: str | None) -> None:
    found, device = lossy_variants(llama_8b(), spec_of(precision=EIGHT), version()), find_gpu(gpu)
    assert device is not None
    variant = next(
        each
        for each in found
        if each.lossy and each.lossy.startswith(words) and "," not in each.lossy[len(words) + 20 :]
    )
    assert helps(variant, device, version()) == expected


def test_int8_activations_have_no_kernels_on_blackwell() -> None:
    config = {**config_of("meta-llama--Llama-3.1-8B-Instruct"), "quantization_config": W8A8}
    variant = next(
        each
        for each in lossy_variants(
            llama_8b(), spec_of(precision=EIGHT), version(), (LossyOption("hf://a/w8a8", profile_of(config)),)
        )
        if each.source is not None
    )
    pairs = ((A100, "both"), (H100, "both"), ("NVIDIA-B200", None))
    for name, expected in pairs:
        gpu = find_gpu(name)
        assert gpu is not None
        assert helps(variant, gpu, version()) == expected


W8A8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
            "input_activations": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "token",
                "dynamic": True,
            },
        }
    },
}


def test_the_int8_cache_needs_a_release_that_has_it() -> None:
    for release, expected in (("0.19.1", False), ("0.20.0", True)):
        request = PlanRequest(spec_of(precision=EIGHT, engine={"version": release}), llama_8b(), 1)
        found = request.engine()
        assert not isinstance(found, Refusal)
        names = {each.kv_cache_dtype for each in lossy_variants(llama_8b(), request.spec, found)}
        assert ("int8_per_token_head" in names) is expected


@pytest.mark.parametrize("size", ["8B", "70B"])
def test_above_13_billion_parameters_the_plan_says_what_8_bits_would_bring(size: str) -> None:
    profile = {"8B": llama_8b(), "70B": llama_70b()}[size]
    notes = chosen(make_plan(profile, inventory_of(mixed_nodes()), workload=LENGTHS)).notes
    found = [note for note in notes if note.startswith("8-bit weights would ")]
    assert len(found) == (1 if size == "70B" else 0)
    assert all("TPOT" in note and "spec.precision.policy: EightBit" in note for note in found)


def test_of_a_checkpoint_in_8_bits_it_says_that() -> None:
    notes = chosen(make_plan(fp8_70b(), inventory_of(mixed_nodes()))).notes
    assert any("have 8 bits already" in note for note in notes)


def test_what_8_bits_would_fit_is_suggested_where_nothing_fits() -> None:
    result = make_plan(llama_70b(), inventory_of([gpu_node("n", L40S, 2)]))
    assert result.plan is None
    assert any(words.startswith("fp8 weights on 2x NVIDIA-L40S") for words in result.would_fit)


def test_parameters_are_counted() -> None:
    assert parameters(llama_1b()) == pytest.approx(1.24e9, rel=0.02)
    assert parameters(llama_8b()) == pytest.approx(8.03e9, rel=0.01)
    assert parameters(llama_70b()) == pytest.approx(70.6e9, rel=0.01)
    assert (weight_bits(llama_8b()), weight_bits(fp8_70b()), weight_bits(int4_14b())) == (16, 8, 4)


def test_a_plan_that_quantises_on_load_says_so_to_the_engine() -> None:
    contender = contender_of(
        result_of(llama_70b(), mixed_nodes(), precision={**EIGHT, "kvCache": "bfloat16"})
    )
    assert contender.settings.quantization == "fp8_per_tensor"
    assert contender.precision == "fp8"
    assert Plan.from_json(contender.to_json()) == contender


def test_what_changes_answers_is_in_the_accuracy_key_and_nothing_else() -> None:
    one = contender_of(result_of(llama_70b(), mixed_nodes(), precision=EIGHT))
    resized = replace(one, settings=replace(one.settings, max_num_seqs=one.settings.max_num_seqs + 1))
    assert resized.accuracy_key() == one.accuracy_key()
    assert resized.digest() != one.digest()
    other = replace(one, settings=replace(one.settings, kv_cache_dtype="bfloat16"))
    assert other.accuracy_key() != one.accuracy_key()


def test_a_lossy_cache_that_is_pinned_is_obeyed_and_called_lossy() -> None:
    inventory = inventory_of([gpu_node("n", H100, 1)])
    pinned = chosen(make_plan(llama_8b(), inventory, precision={"kvCache": "fp8"}))
    assert pinned.settings.kv_cache_dtype == "fp8"
    assert any("spec.precision.kvCache pins fp8, which is lossy" in note for note in pinned.notes)
    lossless = chosen(make_plan(llama_8b(), inventory, precision={"kvCache": "bfloat16"}))
    assert not any("lossy" in note for note in lossless.notes)
