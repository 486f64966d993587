"""What replicas measured when they started calibrates the next plan, and never the one in force."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.engine.record import read_in_force
from stowage.engine.start_up_record import (
    calibration_of,
    read_calibration,
    read_start_ups,
    start_ups_json,
    start_ups_text,
)
from stowage.memory.calibration import UNCALIBRATED, Calibration
from stowage.render import names
from stowage_runtime.contract import RuntimeReport
from stowage_runtime.engine_facts import facts_from_log
from stowage_runtime.engine_logs import EngineLog
from tests.engine.simulation import Simulation, cpu_node, gpu_node

GIB = 2**30
PINNED = {
    "model": {"source": "hf://meta-llama/Llama-3.1-8B"},
    "engine": {"maxNumSeqs": 16, "maxNumBatchedTokens": 2048},
}
L4 = "NVIDIA-L4"


def serving(nodes: int = 1, **parts: Any) -> Simulation:
    sim = Simulation(nodes=[gpu_node(f"gpu-{number}") for number in range(nodes)], **parts)
    sim.serve()
    return sim


def report(sim: Simulation, more_gib: float = 0.2, off_gib: float = 0.0, **engine: Any) -> None:
    """Every agent reports a start that took so much more outside of PyTorch than planned; its parts add up."""
    record = read_in_force(sim.deployment())
    assert record is not None
    ledger, more = record.plan.ledger, int(more_gib * GIB)
    sim.report(kv_cache_tokens=ledger.kv_tokens)
    figures = {
        "weights_bytes": ledger.weights_allocated_bytes,
        "activation_bytes": ledger.activation_bytes,
        "non_torch_bytes": ledger.non_torch_bytes + ledger.persistent_bytes + more,
        "cuda_graph_estimate_bytes": ledger.cuda_graph_bytes,
        "cuda_graph_bytes": 7 * GIB,
        "kv_cache_bytes": ledger.kv_cache_bytes - more + int(off_gib * GIB),
        **engine,
    }
    for uid, known in sim.reports.items():
        sim.reports[uid] = replace(known, engine=replace(known.engine, **figures))


def started_again(sim: Simulation, number: int) -> None:
    """The containers of all pods started anew."""
    for uid, known in sim.reports.items():
        sim.reports[uid] = replace(known, started_at=f"2026-01-01T00:{number:02}:00Z")


def written(sim: Simulation) -> str | None:
    return start_ups_text(sim.child("Deployment"))


def learnt(*sims: Simulation) -> Calibration:
    return calibration_of([text for sim in sims if (text := written(sim))])


@pytest.fixture
def measured() -> Simulation:
    sim = serving()
    report(sim)
    sim.settle()
    return sim


def test_a_start_is_written_down_once_on_the_deployment(measured: Simulation) -> None:
    (start,) = read_start_ups(measured.child("Deployment"))
    key, predicted, found = start.record.key, start.record.predicted, start.record.measured
    assert (key.release, key.device, key.architecture) == ("0.32", L4, "LlamaForCausalLM")
    assert (found.non_torch_bytes or 0) - (predicted.non_torch_bytes or 0) == int(0.2 * GIB)
    assert found.cuda_graph_bytes == predicted.cuda_graph_bytes, (
        "the engine's own estimate is what it subtracts"
    )
    first, second = measured.step(), measured.step()
    assert first.apply == second.apply


def test_it_changes_neither_the_plan_in_force_nor_its_pods(measured: Simulation) -> None:
    fresh = serving()
    assert measured.child("Deployment")["spec"] == fresh.child("Deployment")["spec"]
    measured.calibration = learnt(measured)
    before = measured.step()
    assert before.apply == measured.step().apply
    record, unmeasured = read_in_force(measured.deployment()), read_in_force(fresh.deployment())
    assert record is not None
    assert unmeasured is not None
    assert record.plan == unmeasured.plan


def test_the_next_plan_is_calibrated_and_says_so() -> None:
    measured = serving(spec=PINNED)
    report(measured)
    measured.settle()
    before = measured.resource["status"]["plan"]
    measured.calibration = learnt(measured)
    measured.edit(replan="now")
    measured.settle()
    after = measured.resource["status"]["plan"]
    assert after["calibrated"] == f"1 start-up of LlamaForCausalLM on {L4} (tp1) with vLLM 0.32"
    assert f"The memory ledger is calibrated by {after['calibrated']}." in after["notes"]
    assert "calibrated" not in before
    assert after["ledger"]["nonTorch"] - before["ledger"]["nonTorch"] == pytest.approx(0.2 * GIB, abs=2)
    assert after["ledger"]["band"] < before["ledger"]["band"]


def test_what_a_calibrated_plan_measures_is_compared_with_the_uncalibrated_estimate(
    measured: Simulation,
) -> None:
    measured.calibration = learnt(measured)
    measured.edit(replan="now")
    measured.settle()
    measured.run_pods()
    measured.reports.clear()
    report(measured, more_gib=0.0)
    measured.settle()
    deltas = [
        (each.record.measured.non_torch_bytes or 0) - (each.record.predicted.non_torch_bytes or 0)
        for each in read_start_ups(measured.child("Deployment"))
    ]
    assert deltas == pytest.approx([0.2 * GIB] * len(deltas), abs=2)


def test_another_deployment_learns_from_it_and_so_does_everybody_alike(measured: Simulation) -> None:
    others = [serving(name=name, calibration=learnt(measured)) for name in ("one", "two")]
    plans = [sim.resource["status"]["plan"] for sim in others]
    assert plans[0] == plans[1]
    assert plans[0]["calibrated"] == (
        f"1 start-up of other models or limits on {L4} (tp1) with vLLM 0.32 (memory outside of PyTorch only)"
    )


def test_after_a_restart_of_the_operator_everything_is_read_from_the_deployment(measured: Simulation) -> None:
    before = measured.step().apply
    del measured.resource["status"]
    measured.resolution = None
    measured.reports.clear()
    assert measured.step().apply == before
    assert learnt(measured) != UNCALIBRATED


def test_a_start_that_is_seen_after_a_restart_waits_for_the_model() -> None:
    sim = serving()
    sim.resolution = None
    report(sim)
    assert sim.step().resolve is not None
    assert written(sim) is None
    sim.settle()
    assert len(read_start_ups(sim.child("Deployment"))) == 1


def test_what_the_agent_reads_in_the_log_of_this_release_is_enough() -> None:
    sim = serving()
    record = read_in_force(sim.deployment())
    assert record is not None
    ledger = record.plan.ledger
    outside = ledger.non_torch_bytes + ledger.persistent_bytes + int(0.2 * GIB)
    lines = (
        f"Model loading took {ledger.weights_allocated_bytes / GIB:.4f} GiB memory and 3.1 seconds",
        f"Estimated CUDA graph memory: {ledger.cuda_graph_bytes / GIB:.2f} GiB total",
        f"Available KV cache memory: {(ledger.kv_cache_bytes - int(0.2 * GIB)) / GIB:.2f} GiB",
        f"CUDA graph pool memory: 0.11 GiB (actual), {ledger.cuda_graph_bytes / GIB:.2f} GiB (estimated), difference",
        f"Actual usage is {(ledger.weights_allocated_bytes + outside) / GIB:.2f} GiB for consumed memory (weights + "
        f"non-torch), {ledger.activation_bytes / GIB:.2f} GiB for peak activation, and 0.11 GiB for CUDAGraph memory.",
    )
    log = EngineLog("0.32.0")
    for line in lines:
        log.feed(f"(EngineCore pid=7) INFO 01-01 00:00:00 [gpu_worker.py:1] {line}")
    facts = facts_from_log(log.figures(), log.lines_seen())
    sim.report()
    for uid, known in sim.reports.items():
        sim.reports[uid] = replace(known, engine=replace(facts, kind="vllm", version="0.32.0"))
    sim.settle()
    (start,) = read_start_ups(sim.child("Deployment"))
    off = (start.record.measured.non_torch_bytes or 0) - (start.record.predicted.non_torch_bytes or 0)
    assert off == pytest.approx(0.2 * GIB, abs=0.01 * GIB)
    assert start.record.measured.cuda_graph_bytes == pytest.approx(ledger.cuda_graph_bytes, abs=0.01 * GIB)


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param({"kind": "simulated"}, id="a simulated engine"),
        pytest.param({"version": "0.31.0"}, id="another release than the planned one"),
        pytest.param({"version": None}, id="an engine that does not say its release"),
        pytest.param({"activation_bytes": None}, id="a log without activations"),
        pytest.param({"non_torch_bytes": None}, id="a log without what lies outside of PyTorch"),
        pytest.param({"weights_bytes": None}, id="a log without weights"),
        pytest.param({"kv_cache_bytes": None}, id="a log without the KV cache"),
    ],
)
def test_nothing_is_learnt_from(engine: dict[str, Any]) -> None:
    sim = serving()
    report(sim, **engine)
    sim.settle()
    assert written(sim) is None


@pytest.mark.parametrize(("off_gib", "counts"), [(0.09, True), (-0.09, True), (0.12, False), (-0.12, False)])
def test_the_printed_parts_must_sum_to_the_budget(off_gib: float, counts: bool) -> None:
    sim = serving()
    report(sim, off_gib=off_gib)
    sim.settle()
    assert (written(sim) is not None) is counts


def test_a_pod_that_does_not_serve_yet_has_measured_nothing() -> None:
    sim = serving()
    report(sim)
    for uid, known in sim.reports.items():
        sim.reports[uid] = replace(known, phase="Warming")
    sim.settle()
    assert written(sim) is None


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"runtime": {"args": ["--seed=1"]}}, id="options that the plan does not know"),
        pytest.param(
            {"runtime": {"env": [{"name": "PYTORCH_CUDA_ALLOC_CONF", "value": "expandable_segments:True"}]}},
            id="variables that change what the engine takes",
        ),
        pytest.param({"engine": {"kvCacheMemory": "1Gi"}}, id="pinned bytes of the KV cache"),
    ],
)
def test_a_server_that_runs_otherwise_than_it_was_sized_teaches_nothing(spec: dict[str, Any]) -> None:
    sim = serving(spec={"model": {"source": "hf://meta-llama/Llama-3.1-8B"}, **spec})
    report(sim)
    sim.settle()
    assert sim.condition("Ready")[0] == "True"
    assert written(sim) is None


def test_a_variable_for_logging_does_not_keep_from_learning() -> None:
    env = [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}]
    sim = serving(spec={"model": {"source": "hf://meta-llama/Llama-3.1-8B"}, "runtime": {"env": env}})
    report(sim)
    sim.settle()
    assert written(sim) is not None


def test_cpus_never_teach_anything_about_gpus() -> None:
    spec = {
        "model": {"source": "hf://meta-llama/Llama-3.1-8B"},
        "hardware": {"class": "CPU"},
        "workload": {"maxModelLen": 2048},
    }
    sim = Simulation(spec=spec, nodes=[cpu_node("a", "16", "64Gi")])
    sim.serve()
    report(sim)
    sim.settle()
    assert written(sim) is None


def test_pods_of_an_older_template_are_not_compared_with_the_new_plan() -> None:
    sim = serving()
    sim.edit(workload={"maxModelLen": 4096})
    sim.settle()
    report(sim)
    sim.settle()
    assert written(sim) is None


def test_the_first_starts_of_a_shape_are_kept_and_further_ones_cost_no_write(measured: Simulation) -> None:
    for number in range(1, 12):
        started_again(measured, number)
        measured.settle()
    assert len(read_start_ups(measured.child("Deployment"))) == 8
    full = written(measured)
    started_again(measured, 30)
    measured.settle()
    assert written(measured) == full


def test_what_another_release_of_stowage_has_sized_is_measured_anew(measured: Simulation) -> None:
    (start,) = read_start_ups(measured.child("Deployment"))
    old = start_ups_json([replace(start, sized_by="0.0.1")])
    assert calibration_of([old]) is UNCALIBRATED
    measured.child("Deployment")["metadata"]["annotations"][names.START_UPS_ANNOTATION] = old
    template = measured.child("Deployment")["spec"]["template"]
    measured.settle()
    assert read_start_ups(measured.child("Deployment")) == (start,)
    assert measured.child("Deployment")["spec"]["template"] == template


@pytest.mark.parametrize("text", ["", "no json", "{}", "[1]", '[{"start": "x"}]', "null", "[" * 200_000])
def test_a_damaged_record_is_no_record(measured: Simulation, text: str) -> None:
    measured.child("Deployment")["metadata"]["annotations"][names.START_UPS_ANNOTATION] = text
    assert read_start_ups(measured.child("Deployment")) == ()
    assert calibration_of([text]) == UNCALIBRATED


def test_the_order_of_records_and_of_deployments_does_not_matter() -> None:
    sims = []
    for number, more in enumerate((0.1, 0.3, 0.15)):
        sim = serving(name=f"llama-{number}")
        report(sim, more_gib=more)
        started_again(sim, number)
        sim.settle()
        sims.append(sim)
    texts = [text for sim in sims if (text := written(sim))]
    assert len(texts) == 3
    found = [calibration_of(order) for order in permutations(texts)]
    assert all(each == found[0] for each in found)
    assert found[0] == calibration_of([*texts, *texts]), "a start counts once"


def test_a_file_for_the_command_line_is_the_annotation_or_what_kubectl_prints(measured: Simulation) -> None:
    deployment = measured.child("Deployment")
    text = written(measured)
    assert text is not None
    listed = json.dumps({"kind": "List", "items": [deployment, {"kind": "Deployment", "metadata": {}}]})
    assert read_calibration(text) == read_calibration(listed) == read_calibration(json.dumps(deployment))
    assert read_calibration(text) == learnt(measured)


@pytest.mark.parametrize("text", ["", "3", '"x"', '{"items": 3}', '{"items": [3]}'])
def test_a_file_that_cannot_be_read_is_refused_in_one_sentence(text: str) -> None:
    found = read_calibration(text)
    assert isinstance(found, Refusal)
    assert found.message.startswith("The calibration file cannot be used: it ")
    assert found.hint


def test_nothing_secret_and_no_prompt_is_in_a_start_up(measured: Simulation) -> None:
    (document,) = json.loads(written(measured) or "")
    assert set(document) == {"start", "started_at", "sized_by", "record"}
    assert isinstance(next(iter(measured.reports.values())), RuntimeReport)
