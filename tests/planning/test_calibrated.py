"""What measured start-ups change in a plan, and that the plan says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.calibration import (
    UNCALIBRATED,
    Calibration,
    StartRecord,
    Terms,
    calibrate,
    calibration_key,
)
from stowage.memory.device import DeviceMemory
from stowage.memory.release.engine_version import EngineVersion, engine_version
from stowage.planning.calibrated import calibrated_words
from stowage.planning.explain.levers import lever_question
from stowage.planning.plan import Plan, PlanRequest, plan
from tests.hardware.objects import gpu_node
from tests.planning.builders import chosen, inventory_of, llama_8b, spec_of

GIB = 2**30
L4 = "NVIDIA-L4"
ROOM = inventory_of([gpu_node("a", L4, 1)])
PINNED = {"maxNumSeqs": 16, "maxNumBatchedTokens": 2048}


def planned(calibration: Calibration = UNCALIBRATED, **engine: Any) -> Plan:
    request = PlanRequest(spec_of(engine={**PINNED, **engine}), llama_8b(), 1, calibration=calibration)
    return chosen(plan(request, ROOM))


def version() -> EngineVersion:
    found = engine_version("0.32.0")
    assert isinstance(found, EngineVersion)
    return found


def device(found: Plan, name: str = L4) -> DeviceMemory:
    return DeviceMemory(name, found.ledger.total_bytes, (8, 9), "GPU")


def learnt(more_gib: float, count: int = 1, **changes: Any) -> Calibration:
    """So many starts of the server that is planned without measurements; each took more than was thought."""
    guessed = planned()
    ledger, shape = guessed.ledger, guessed.settings.shape(0.92)
    key = replace(calibration_key(llama_8b(), shape, device(guessed), version()), **changes)
    outside = ledger.non_torch_bytes + ledger.persistent_bytes
    more = int(more_gib * GIB)
    record = StartRecord(
        key,
        Terms(ledger.activation_bytes, outside, ledger.cuda_graph_bytes),
        Terms(ledger.activation_bytes, outside + more, ledger.cuda_graph_bytes),
        budget_bytes=ledger.budget_bytes,
        weights_bytes=ledger.weights_allocated_bytes,
        kv_cache_bytes=ledger.kv_cache_bytes - more,
        cuda_graphs_counted=True,
    )
    assert record.adds_up
    return calibrate([record] * count)


def test_the_ledger_of_the_plan_is_corrected_and_the_plan_says_by_what() -> None:
    before, after = planned(), planned(learnt(0.3, 3))
    assert after.ledger.non_torch_bytes - before.ledger.non_torch_bytes == pytest.approx(0.3 * GIB, abs=2)
    assert after.calibrated == f"3 start-ups of LlamaForCausalLM on {L4} (tp1) with vLLM 0.32"
    assert f"The memory ledger is calibrated by {after.calibrated}." in after.notes
    assert Plan.from_json(after.to_json()) == after
    assert before.calibrated is None
    assert not any("calibrated" in note for note in before.notes)


def test_starts_of_other_models_and_limits_teach_what_lies_outside_of_torch() -> None:
    after = planned(learnt(0.3, architecture="Qwen3ForCausalLM", max_num_seqs=8))
    assert after.calibrated == (
        f"1 start-up of other models or limits on {L4} (tp1) with vLLM 0.32 (memory outside of PyTorch only)"
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"device": "NVIDIA-L40S"}, id="another GPU"),
        pytest.param({"release": "0.31"}, id="another release"),
        pytest.param({"tensor_parallel_size": 2}, id="another split"),
    ],
)
def test_starts_elsewhere_change_nothing(changes: dict[str, Any]) -> None:
    assert planned(learnt(0.3, **changes)) == planned()


def test_levers_stand_on_what_was_measured_too() -> None:
    calibration = learnt(0.6, 3)
    request = PlanRequest(spec_of(engine=PINNED), llama_8b(), 1, calibration=calibration)
    found = planned(calibration)
    question = lever_question(request, found)
    assert question is not None
    same = question.refit()
    assert not isinstance(same, Refusal)
    assert same.kv_tokens == found.ledger.kv_tokens < planned().ledger.kv_tokens


def test_a_plan_with_pinned_bytes_owes_its_cache_to_no_measurement() -> None:
    assert planned(learnt(0.3), kvCacheMemory="2Gi").calibrated is None


def test_words_name_a_pipeline_and_no_cpu() -> None:
    found = planned()
    settings = replace(found.settings, pipeline_parallel_size=2)
    key = calibration_key(llama_8b(), settings.shape(0.92), device(found), version())
    record = StartRecord(key, Terms(0, 0, 0), Terms(0, 0, 0), 0, 0, 0, True)
    calibration = calibrate([record])
    words = calibrated_words(calibration, llama_8b(), settings, device(found), version())
    assert words == f"1 start-up of LlamaForCausalLM on {L4} (tp1 pp2) with vLLM 0.32"
    cpu = DeviceMemory(L4, found.ledger.total_bytes, (0, 0), "CPU")
    assert calibrated_words(calibration, llama_8b(), settings, cpu, version()) is None
