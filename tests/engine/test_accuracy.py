"""A lossy plan is taken only after its accuracy check: played through on a simulated cluster.

The planner is the real one, asked for a lossless plan; the lossy plan beside it is made here, so that these rules do
not depend on when the planner finds that a loss pays.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

import pytest

import stowage.engine.plan_step as plan_step
from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.engine.record import read_in_force
from stowage.hardware.inventory import Inventory
from stowage.planning.plan import Plan, PlanRequest, PlanResult, plan
from stowage.render import names
from stowage.world import ModelResolved
from stowage_runtime.contract import (
    AccuracyCheck,
    AccuracyReport,
    AnswerFigures,
    CheckpointSummary,
    LikelihoodFigures,
    Termination,
)
from tests.engine.simulation import Simulation, gpu_node, summary
from tests.model.support import config_of

WORDS = "fp8 weights, quantised on load"
NODES = [gpu_node("gpu-1", 2)]


def spec(**changes: Any) -> dict[str, Any]:
    accuracy = {"promptsRef": {"configMap": "questions"}, "maxDrop": "1%", **changes}
    return {
        "model": {"source": "hf://meta-llama/Llama-3.1-8B"},
        "precision": {"policy": "EightBit", "accuracy": accuracy},
    }


@cache
def lossless() -> tuple[Plan, Plan]:
    """The lossless plan of the simulation's model, and the same in fp8."""
    sim = Simulation(nodes=NODES)
    found: list[PlanResult] = []

    def planner(request: PlanRequest, inventory: Inventory) -> PlanResult:
        found.append(plan(request, inventory))
        return found[-1]

    patched = pytest.MonkeyPatch()
    patched.setattr(plan_step, "plan", planner)
    sim.settle()
    patched.undo()
    exact = found[0].plan
    assert exact is not None
    return exact, replace(exact, settings=replace(exact.settings, quantization="fp8"), lossy=WORDS)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[PlanRequest]:
    """The planner finds a lossy plan worth a check; gives what it was asked."""
    asked: list[PlanRequest] = []
    exact, lossy = lossless()

    def planner(request: PlanRequest, _: Inventory) -> PlanResult:
        asked.append(request)
        if lossy.accuracy_key() in request.passed:
            return PlanResult(lossy)
        failed = lossy.accuracy_key() in request.failed
        return PlanResult(exact, contender=None if failed else lossy)

    monkeypatch.setattr(plan_step, "plan", planner)
    return asked


@pytest.fixture
def nothing_else_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the lossy plan fits."""
    lossy = lossless()[1]

    def planner(request: PlanRequest, _: Inventory) -> PlanResult:
        if lossy.accuracy_key() in request.passed:
            return PlanResult(lossy)
        if lossy.accuracy_key() in request.failed:
            return PlanResult(None, Refusal(Reason.INSUFFICIENT_MEMORY, "No lossless plan fits."))
        waiting = Refusal(Reason.ACCURACY_CHECK_PENDING, "Only a lossy plan fits.")
        return PlanResult(None, waiting, contender=lossy)

    monkeypatch.setattr(plan_step, "plan", planner)


def check_of(sim: Simulation) -> AccuracyCheck:
    job = sim.child("Job")
    config = next(
        obj
        for ref, obj in sim.children.items()
        if ref.kind == "ConfigMap" and ref.name == job["metadata"]["name"]
    )
    return AccuracyCheck.from_json(config["data"][names.CHECK_KEY])


def likelihood(drop: float, spread: float = 0.001, noise: float = 0.0) -> LikelihoodFigures:
    return LikelihoodFigures(100, 9000, drop, drop - spread, drop + spread, noise)


def finish(sim: Simulation, message: str, exit_code: int = 0) -> None:
    """The Job's pod ends with that termination message, and the Job controller says so."""
    job = sim.child("Job")
    labels = job["spec"]["template"]["metadata"]["labels"]
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{job['metadata']['name']}-x",
            "namespace": "default",
            "uid": "job-pod",
            "labels": labels,
            "ownerReferences": [{"kind": "Job", "uid": job["metadata"]["uid"], "controller": True}],
        },
        "spec": {"nodeName": "gpu-1", "containers": []},
        "status": {
            "phase": "Failed" if exit_code else "Succeeded",
            "containerStatuses": [
                {
                    "name": names.ENGINE_CONTAINER,
                    "state": {"terminated": {"exitCode": exit_code, "message": message}},
                }
            ],
        },
    }
    ref = next(ref for ref in sim.children if ref.kind == "Job")
    sim.children[ref._replace(api_version="v1", kind="Pod", name=pod["metadata"]["name"])] = pod
    end_job(sim, "Failed" if exit_code else "Complete")


def end_job(sim: Simulation, kind: str, reason: str = "") -> None:
    sim.child("Job")["status"] = {"conditions": [{"type": kind, "status": "True", "reason": reason}]}


def collect_job(sim: Simulation) -> None:
    """The Job's time is over: the controller removes it with its pod."""
    for ref in [ref for ref in sim.children if ref.kind in ("Job", "Pod")]:
        del sim.children[ref]


def report(sim: Simulation, drop: float, **changes: Any) -> str:
    figures = {"likelihood": likelihood(drop), **changes}
    return AccuracyReport(
        check_id=check_of(sim).check_id,
        message="Measured.",
        prompts=100,
        prompts_digest="0" * 64,
        confidence=0.95,
        engine_kind="vllm",
        **figures,
    ).to_line()


def accuracy(sim: Simulation) -> dict[str, Any]:
    found: dict[str, Any] = sim.resource["status"]["accuracy"]
    return found


def quantization(sim: Simulation) -> str | None:
    record = read_in_force(sim.deployment())
    return record.plan.settings.quantization if record is not None else None


@pytest.fixture
def checking(requests: list[PlanRequest]) -> Simulation:
    """The lossless plan serves, and the check runs beside it."""
    sim = Simulation(spec=spec(), nodes=NODES)
    sim.serve()
    assert "Job" in sim.kinds()
    return sim


def test_the_baseline_comes_first_and_serves_while_the_check_runs(requests: list[PlanRequest]) -> None:
    sim = Simulation(spec=spec(), nodes=NODES)
    sim.settle()
    assert "Job" not in sim.kinds()
    assert (accuracy(sim)["state"], accuracy(sim)["message"]) == (
        "Waiting",
        "The replicas of the lossless plan come first.",
    )
    sim.run_pods()
    sim.settle()
    assert quantization(sim) is None
    assert sim.condition("Ready")[:2] == ("True", "Serving")
    assert accuracy(sim)["state"] == "Running"
    assert "The accuracy check of fp8 weights, quantised on load runs" in sim.condition("Planned")[2]
    assert len(requests) == 1


def test_the_job_compares_both_plans_and_has_an_owner_an_end_and_one_try(checking: Simulation) -> None:
    job, check = checking.child("Job"), check_of(checking)
    assert job["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert job["metadata"]["name"] == job["metadata"]["name"][:63]
    limits = job["spec"]
    assert (limits["backoffLimit"], limits["completions"], limits["parallelism"]) == (0, 1, 1)
    assert limits["ttlSecondsAfterFinished"] > 0
    assert limits["activeDeadlineSeconds"] > check.candidate.startup_timeout_seconds
    assert check.baseline is not None
    assert "--quantization" in check.candidate.args
    assert "--quantization" not in check.baseline.args
    assert check.baseline.gpus == check.candidate.gpus


def test_a_converged_check_is_not_written_again(checking: Simulation) -> None:
    first, second = checking.step(), checking.step()
    assert first.apply == second.apply
    assert first.status == second.status
    assert not any(obj["kind"] == "Job" for obj in first.apply)
    assert first.delete == second.delete == ()


def test_a_pass_replaces_the_baseline_and_is_remembered(checking: Simulation) -> None:
    finish(checking, report(checking, 0.002))
    checking.settle()
    assert quantization(checking) == "fp8"
    assert (accuracy(checking)["state"], accuracy(checking)["verdict"]) == ("Judged", "Pass")
    assert accuracy(checking)["likelihood"]["dropPercent"] == 0.2
    assert ("Normal", "Fits") in checking.events
    collect_job(checking)
    checking.run_pods()
    checking.settle()
    assert quantization(checking) == "fp8"
    assert accuracy(checking)["verdict"] == "Pass"
    assert "Job" not in checking.kinds()
    assert checking.condition("Ready")[:2] == ("True", "Serving")


@pytest.mark.parametrize(
    ("drop", "verdict", "reason"),
    [
        pytest.param(0.05, "Fail", "AccuracyCheckFailed", id="a loss that is shown"),
        pytest.param(
            0.0095, "Inconclusive", "AccuracyCheckInconclusive", id="a bound beyond what is accepted"
        ),
    ],
)
def test_anything_but_a_pass_leaves_the_baseline_and_is_not_repeated(
    checking: Simulation, drop: float, verdict: str, reason: str
) -> None:
    finish(checking, report(checking, drop))
    checking.settle()
    collect_job(checking)
    checking.settle()
    assert quantization(checking) is None
    assert (accuracy(checking)["verdict"], accuracy(checking)["reason"]) == (verdict, reason)
    assert "Job" not in checking.kinds()
    assert checking.condition("Ready")[:2] == ("True", "Serving")
    assert [event for event in checking.events if event[1] == reason] == [("Warning", reason)]


def test_a_lost_status_and_a_new_operator_forget_no_verdict(checking: Simulation) -> None:
    finish(checking, report(checking, 0.05))
    checking.settle()
    collect_job(checking)
    checking.resource["status"] = {}
    checking.resolution = None
    checking.upgrade("0.2.0")
    checking.settle()
    assert accuracy(checking)["verdict"] == "Fail"
    assert "Job" not in checking.kinds()


def test_after_a_failure_the_planner_is_asked_for_the_next_lossy_plan(
    checking: Simulation, requests: list[PlanRequest]
) -> None:
    finish(checking, report(checking, 0.05))
    checking.settle()
    assert requests[-1].failed == {lossless()[1].accuracy_key()}
    count = len(requests)
    checking.settle()
    assert len(requests) == count


def test_a_larger_accepted_loss_is_judged_on_what_was_measured(checking: Simulation) -> None:
    finish(checking, report(checking, 0.02))
    checking.settle()
    collect_job(checking)
    checking.edit(precision=spec(maxDrop="5%")["precision"])
    checking.settle()
    assert (accuracy(checking)["verdict"], accuracy(checking)["maxDrop"]) == ("Pass", "5%")
    assert quantization(checking) == "fp8"
    assert "Job" not in checking.kinds()


def test_other_prompts_are_another_check(checking: Simulation) -> None:
    finish(checking, report(checking, 0.05))
    checking.settle()
    first = check_of(checking).check_id
    collect_job(checking)
    checking.edit(precision=spec(promptsRef={"configMap": "more-questions"})["precision"])
    checking.settle()
    assert check_of(checking).check_id != first
    (mounted,) = [
        volume["configMap"]["name"]
        for volume in checking.child("Job")["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "prompts"
    ]
    assert mounted == "more-questions"


def test_scaling_makes_no_new_check(checking: Simulation) -> None:
    before = check_of(checking).check_id
    checking.edit(replicas=0)
    checking.settle()
    assert check_of(checking).check_id == before


def test_a_check_nobody_waits_for_is_ended(checking: Simulation) -> None:
    checking.edit(precision={"policy": "Checkpoint"})
    checking.settle()
    assert "Job" not in checking.kinds()
    assert "accuracy" not in checking.resource["status"]


def test_the_job_of_a_check_that_is_over_stays_for_its_log(checking: Simulation) -> None:
    finish(checking, report(checking, 0.002))
    del checking.child("Job")["status"]  # the Job controller is a moment behind
    checking.settle()
    assert quantization(checking) == "fp8"
    assert "Job" in checking.kinds()


def test_a_check_waits_for_gpus_that_are_free(requests: list[PlanRequest]) -> None:
    sim = Simulation(spec=spec(), nodes=[gpu_node("gpu-1", 1)])
    sim.serve()
    assert "Job" not in sim.kinds()
    assert accuracy(sim)["message"] == (
        "It needs 1 x NVIDIA-L4 for itself, and no node has that free beside the running replicas."
    )
    outcome = sim.step()
    assert outcome.requeue_after is not None
    assert outcome.requeue_after <= timedelta(seconds=30)
    sim.nodes.append(gpu_node("gpu-2", 1))
    sim.settle()
    assert accuracy(sim)["state"] == "Running"


def test_in_plan_mode_nothing_is_launched(requests: list[PlanRequest]) -> None:
    sim = Simulation(spec={**spec(), "mode": "Plan"}, nodes=NODES)
    sim.settle()
    assert sim.kinds() == []
    assert "spec.mode is Plan" in accuracy(sim)["message"]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        pytest.param(
            lambda sim: finish(sim, Termination(reason="CUDAOutOfMemory", message="No memory.").to_line(), 1),
            "No memory.",
            id="an engine that fails",
        ),
        pytest.param(
            lambda sim: finish(sim, "killed", 137), "exit code 137", id="a container that is killed"
        ),
        pytest.param(
            lambda sim: end_job(sim, "Failed", "DeadlineExceeded"), "within its deadline", id="a deadline"
        ),
        pytest.param(lambda sim: end_job(sim, "Complete"), "without a report", id="a pod that has vanished"),
    ],
)
def test_a_check_that_could_not_measure_is_tried_again_a_few_times(
    checking: Simulation, end: Callable[[Simulation], None], words: str
) -> None:
    tried = set()
    for _ in range(3):
        tried.add(check_of(checking).check_id)
        end(checking)
        checking.settle()
        assert words in accuracy(checking)["message"]
        collect_job(checking)
        checking.settle()
        assert "Job" not in checking.kinds()
        checking.now += timedelta(hours=1)
        checking.settle()
    assert len(tried) == 3
    assert "Job" not in checking.kinds()
    assert accuracy(checking)["verdict"] == "Inconclusive"
    assert quantization(checking) is None


def test_bad_prompts_are_read_again_within_minutes(checking: Simulation) -> None:
    message = "The prompts of spec.precision.accuracy.promptsRef cannot be used: line 3: it is not JSON."
    for _ in range(5):
        finish(checking, Termination(reason="InvalidPrompts", message=message).to_line(), 1)
        checking.settle()
        assert accuracy(checking)["reason"] == "InvalidPrompts"
        assert "line 3" in checking.condition("Planned")[2]
        collect_job(checking)
        checking.now += timedelta(minutes=3)
        checking.settle()
        assert accuracy(checking)["state"] == "Running"


def test_a_report_about_another_check_counts_for_nothing(checking: Simulation) -> None:
    other = json.loads(report(checking, 0.0)) | {"checkId": "ab" * 20}
    finish(checking, json.dumps(other))
    checking.settle()
    assert quantization(checking) is None
    assert "about another check" in accuracy(checking)["message"]


def test_an_unreadable_record_means_a_new_check_and_no_harm(checking: Simulation) -> None:
    finish(checking, report(checking, 0.05))
    checking.settle()
    collect_job(checking)
    deployment = checking.deployment()
    assert deployment is not None
    deployment["metadata"]["annotations"][names.ACCURACY_ANNOTATION] = '{"contender": 5}'
    checking.settle()
    assert quantization(checking) is None


def test_where_nothing_lossless_fits_the_check_has_no_baseline_and_a_pass_serves(
    nothing_else_fits: None,
) -> None:
    sim = Simulation(spec=spec(maxDrop="5%"), nodes=NODES)
    sim.settle()
    assert sim.kinds() == ["ConfigMap", "Job"]
    assert sim.condition("Planned")[:2] == ("False", "AccuracyCheckPending")
    assert check_of(sim).baseline is None
    answers = AnswerFigures(100, 100, 100, 0, 0, 0.0, -0.03, 0.032)
    finish(sim, report(sim, 0.0, likelihood=None, answers=answers))
    sim.settle()
    collect_job(sim)
    sim.settle()
    assert quantization(sim) == "fp8"
    assert sim.kinds() == ["ConfigMap", "Deployment", "PodDisruptionBudget", "Service"]


def test_where_nothing_lossless_fits_a_failure_is_remembered_without_a_workload(
    nothing_else_fits: None,
) -> None:
    sim = Simulation(spec=spec(), nodes=NODES)
    sim.settle()
    answers = AnswerFigures(100, 100, 60, 40, 0, 0.4, 0.28, 0.5)
    finish(sim, report(sim, 0.0, likelihood=None, answers=answers))
    sim.settle()
    collect_job(sim)
    sim.settle()
    assert sim.kinds() == ["ConfigMap"]
    assert accuracy(sim)["verdict"] == "Fail"
    assert sim.condition("Planned")[0] == "False"
    assert sim.step().apply == sim.step().apply


def test_what_recorded_answers_could_not_show_is_checked_again_once_a_baseline_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact, lossy = lossless()
    fits = False

    def planner(request: PlanRequest, _: Inventory) -> PlanResult:
        waiting = Refusal(Reason.ACCURACY_CHECK_PENDING, "Only a lossy plan fits.")
        return PlanResult(exact if fits else None, None if fits else waiting, contender=lossy)

    monkeypatch.setattr(plan_step, "plan", planner)
    sim = Simulation(spec=spec(), nodes=NODES)
    sim.settle()
    answers = AnswerFigures(100, 100, 100, 0, 0, 0.0, -0.03, 0.032)
    finish(sim, report(sim, 0.0, likelihood=None, answers=answers))
    sim.settle()
    assert accuracy(sim)["verdict"] == "Inconclusive"
    collect_job(sim)
    fits = True
    sim.settle()
    sim.run_pods()
    sim.settle()
    assert check_of(sim).baseline is not None


FP8 = "hf://org/llama-fp8"
LONG = {
    "maxModelLen": 32768,
    "concurrencyPerReplica": 4,
    "promptTokens": {"mean": 16000},
    "outputTokens": {"mean": 300},
}


def with_alternative(found: CheckpointSummary | Refusal) -> Simulation:
    """One L4 is too small for this wish in bfloat16; the real planner is asked."""
    wish = spec() | {"workload": LONG}
    wish["precision"] |= {"alternatives": [{"source": FP8}]}
    sim = Simulation(spec=wish, nodes=[gpu_node("gpu-1", 4)])
    sim.model = ModelResolved(summary(), {FP8: found})
    sim.serve()
    return sim


def test_an_allowed_checkpoint_is_read_planned_and_compared_at_its_own_commit() -> None:
    config = config_of("synthetic--llama-8b-fp8-static")
    sim = with_alternative(CheckpointSummary(FP8, config, (), 0, 0, revision="f" * 40))
    assert sim.resolution is not None
    assert sim.resolution.query.alternatives == (FP8,)
    assert FP8 in accuracy(sim)["candidate"]
    check = check_of(sim)
    assert (check.candidate.model.repo_id, check.candidate.model.revision) == ("org/llama-fp8", "f" * 40)
    finish(sim, report(sim, 0.002))
    sim.settle()
    record = read_in_force(sim.deployment())
    assert record is not None
    assert record.plan.model_source == FP8
    assert "org/llama-fp8" in record.launch
    collect_job(sim)
    sim.run_pods()
    before = sim.settle().apply
    assert sim.step().apply == before
    assert sim.condition("Ready")[:2] == ("True", "Serving")


def test_an_alternative_that_cannot_be_read_is_left_out_and_said() -> None:
    sim = with_alternative(Refusal(Reason.MODEL_ACCESS_DENIED, "It is gated."))
    assert f"The alternative {FP8} is left out: It is gated." in sim.resource["status"]["plan"]["notes"]


def test_a_lossy_plan_that_failed_for_another_reason_says_which_prompts_are_needed(
    nothing_else_fits: None,
) -> None:
    sim = Simulation(spec=spec(), nodes=NODES)
    sim.settle()
    answers = AnswerFigures(100, 100, 100, 0, 0, 0.0, -0.03, 0.032)
    finish(sim, report(sim, 0.0, likelihood=None, answers=answers))
    sim.settle()
    assert sim.condition("Planned")[:2] == ("False", "AccuracyCheckInconclusive")
    assert accuracy(sim)["neededPrompts"] == 321
    assert "takes at least 321 prompts" in accuracy(sim)["message"]
