"""A plan in force is kept; what a better one would bring is shown, told once, and taken only when asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.v1alpha1.plan_status import PLAN_MAX_BYTES
from stowage.engine.better_record import read_better
from stowage.engine.record import read_in_force
from stowage.planning.prices import Prices
from stowage.render import names
from stowage.world import Key, ModelFailed, ModelPending
from tests.engine.simulation import Simulation, cpu_node, gpu_node, gpu_pod

H100 = gpu_node("h100", 8, "NVIDIA-H100-80GB-HBM3", 81559, "9.0")
L4 = gpu_node("l4", 1)
PRICES = Prices({"NVIDIA-L4": 0.5, "NVIDIA-H100-80GB-HBM3": 4.0}, "USD", frozenset())


def serving_on_h100(**parts: Any) -> Simulation:
    """An object that was planned when there was nothing but large GPUs."""
    sim = Simulation(nodes=[H100], **parts)
    sim.options = replace(sim.options, prices=PRICES)
    sim.serve()
    return sim


def reviewed(sim: Simulation) -> Simulation:
    """One resync: the review is due once."""
    sim.review = True
    sim.step()
    sim.review = False
    return sim


def better(sim: Simulation) -> dict[str, Any] | None:
    found: dict[str, Any] | None = sim.resource["status"]["plan"].get("better")
    return found


@pytest.fixture
def offered() -> Simulation:
    sim = serving_on_h100()
    sim.nodes.append(L4)
    return reviewed(sim)


def test_a_cheaper_place_is_shown_with_what_it_brings_and_how_to_take_it(offered: Simulation) -> None:
    shown = better(offered)
    assert shown is not None
    assert shown["plan"] == "1x NVIDIA-L4 (tp1), bf16"
    assert shown["costPercent"] == -88
    assert shown["tpotPercent"] > 100
    assert shown["brings"].startswith("cost 0.50 USD instead of 4.00 per hour (-88 %); TTFT ")
    assert shown["take"].startswith(
        f"Set spec.replan to {shown['replan']} (kubectl patch llmd llama -n default "
    )
    assert offered.resource["status"]["plan"]["gpus"] == "1x NVIDIA-H100-80GB-HBM3"
    assert ("Normal", "BetterPlanFound") in offered.events


def test_it_changes_no_pod_and_no_record_of_the_plan_in_force(offered: Simulation) -> None:
    sim = serving_on_h100()
    before, after = sim.child("Deployment"), offered.child("Deployment")
    assert after["spec"] == before["spec"]
    record = names.IN_FORCE_ANNOTATION
    assert after["metadata"]["annotations"][record] == before["metadata"]["annotations"][record]


def test_a_steady_finding_costs_no_write_however_often_it_is_reviewed(offered: Simulation) -> None:
    offered.review = True
    first, second = offered.step(), offered.step()
    assert first.apply == second.apply
    assert first.status == second.status
    assert first.events == second.events == ()
    assert second.reviewed


def test_between_reviews_nothing_is_searched_and_the_finding_stands(offered: Simulation) -> None:
    shown = better(offered)
    offered.foreign_pods.append(gpu_pod("x", "l4", 1))
    offered.settle()
    assert better(offered) == shown


def test_a_finding_survives_a_lost_status_and_a_restart_without_another_event(offered: Simulation) -> None:
    shown, events = better(offered), [event for event in offered.events if event[1] == "BetterPlanFound"]
    del offered.resource["status"]
    offered.resolution = None
    offered.step()
    assert better(offered) == shown
    offered.review = True
    offered.settle()
    assert better(offered) == shown
    assert [event for event in offered.events if event[1] == "BetterPlanFound"] == events


def test_a_place_that_comes_and_goes_is_told_once(offered: Simulation) -> None:
    shown = better(offered)
    for _ in range(3):
        offered.foreign_pods.append(gpu_pod("x", "l4", 1))
        assert better(reviewed(offered)) is None
        offered.foreign_pods.clear()
        assert better(reviewed(offered)) == shown
    assert offered.events.count(("Normal", "BetterPlanFound")) == 1


def test_the_words_follow_when_it_comes_to_bring_visibly_more_or_less(offered: Simulation) -> None:
    def priced(l4: float) -> dict[str, Any] | None:
        prices = replace(PRICES, per_gpu_hour={**PRICES.per_gpu_hour, "NVIDIA-L4": l4})
        offered.options = replace(offered.options, prices=prices)
        return better(reviewed(offered))

    first = better(offered)
    assert priced(0.6) == first
    moved = priced(2.0)
    assert moved is not None
    assert moved["costPercent"] == -50
    assert offered.events.count(("Normal", "BetterPlanFound")) == 1


def test_less_than_a_tenth_is_not_worth_telling() -> None:
    sim = serving_on_h100()
    sim.options = replace(
        sim.options, prices=replace(PRICES, per_gpu_hour={**PRICES.per_gpu_hour, "NVIDIA-L4": 3.7})
    )
    sim.nodes.append(L4)
    assert better(reviewed(sim)) is None
    assert names.BETTER_ANNOTATION not in sim.child("Deployment")["metadata"]["annotations"]


def test_replan_takes_it_and_the_finding_is_gone(offered: Simulation) -> None:
    shown = better(offered)
    assert shown is not None
    offered.edit(replan=shown["replan"])
    offered.settle()
    record = read_in_force(offered.deployment())
    assert record is not None
    assert record.plan.gpu_product == "NVIDIA-L4"
    assert better(offered) is None
    assert read_better(offered.deployment()).is_empty
    offered.run_pods()
    assert better(reviewed(offered)) is None


def test_replan_asks_for_no_other_commit_of_the_model(offered: Simulation) -> None:
    asked = offered.resolution
    offered.edit(replan="again")
    outcome = offered.step()
    assert outcome.resolve is None
    assert offered.resolution == asked


def test_replan_without_anything_better_restarts_nothing() -> None:
    sim = serving_on_h100()
    template = sim.child("Deployment")["spec"]["template"]
    sim.edit(replan="now")
    sim.settle()
    assert sim.child("Deployment")["spec"]["template"] == template


def test_another_wish_ends_the_finding(offered: Simulation) -> None:
    offered.edit(hardware={"gpus": ["NVIDIA-H100-80GB-HBM3"]})
    offered.settle()
    assert better(offered) is None
    assert better(reviewed(offered)) is None


def test_an_operator_with_another_default_release_finds_nothing_better_in_it() -> None:
    sim = serving_on_h100()
    sim.options = replace(sim.options, default_engine_version="0.31.0")
    assert better(reviewed(sim)) is None


def test_who_is_older_and_waits_for_gpus_comes_first() -> None:
    sim = serving_on_h100()
    sim.nodes.append(L4)
    sim.ahead = (Key("default", "older"),)
    sim.review = True
    outcome = sim.step()
    assert not outcome.reviewed
    assert better(sim) is None


def test_a_plan_that_misses_an_objective_is_told_what_would_meet_it() -> None:
    load = {"promptTokens": {"mean": 2000}, "outputTokens": {"mean": 200}, "concurrencyPerReplica": 8}
    spec = {
        "model": {"source": "hf://meta-llama/Llama-3.1-8B"},
        "workload": load,
        "objectives": {"tpot": "25ms"},
        "parallelism": {"tensor": 1},
    }
    sim = Simulation(spec=spec, nodes=[L4])
    sim.options = replace(sim.options, prices=PRICES)
    sim.serve()
    sim.nodes.append(H100)
    shown = better(reviewed(sim))
    assert shown is not None
    assert shown["plan"].startswith("1x NVIDIA-H100")
    assert shown["brings"].startswith("1 objective met that the plan in force misses")


@pytest.mark.parametrize(
    ("state", "asks", "done"),
    [
        pytest.param(ModelPending(), True, False, id="an answer that is on its way is waited for"),
        pytest.param(
            ModelFailed(Refusal(Reason.HUB_UNREACHABLE, "No Hub."), None), False, True, id="no Hub, no review"
        ),
    ],
)
def test_after_a_restart_the_model_is_read_again_for_a_review_only(
    offered: Simulation, state: Any, asks: bool, done: bool
) -> None:
    shown = better(offered)
    offered.resolution, offered.model = None, state
    assert offered.step().resolve is None
    offered.review = True
    assert offered.step().resolve is not None
    outcome = offered.step()
    assert (outcome.resolve is not None, outcome.reviewed) == (asks, done)
    assert better(offered) == shown
    assert offered.condition("Ready")[:2] == ("True", "Serving")


def test_a_failed_answer_is_asked_for_again_once_it_is_due(offered: Simulation) -> None:
    offered.resolution = None
    offered.model = ModelFailed(
        Refusal(Reason.HUB_UNREACHABLE, "No Hub."), offered.now + timedelta(minutes=1)
    )
    offered.review = True
    offered.step()
    assert offered.step().resolve is None
    offered.now += timedelta(minutes=2)
    outcome = offered.step()
    assert outcome.resolve is not None
    assert outcome.reviewed, "not before the next resync"


def test_no_pod_is_started_to_look_for_something_better() -> None:
    spec = {
        "model": {"source": "hf://meta-llama/Llama-3.1-8B", "tokenSecretRef": {"name": "hub", "key": "token"}}
    }
    sim = serving_on_h100(spec=spec)
    sim.nodes.append(L4)
    assert better(reviewed(sim)) is not None
    sim.resolution, sim.review = None, True
    outcome = sim.step()
    assert outcome.resolve is None
    assert outcome.reviewed
    assert not any(obj["kind"] == "Pod" for obj in outcome.apply)
    assert better(sim) is None, "what cannot be checked is not shown"


def test_nothing_is_searched_for_a_plan_on_cpus() -> None:
    spec = {
        "model": {"source": "hf://meta-llama/Llama-3.1-8B"},
        "hardware": {"class": "CPU"},
        "workload": {"maxModelLen": 2048},
    }
    sim = Simulation(spec=spec, nodes=[cpu_node("a", "16", "64Gi")])
    sim.serve()
    assert sim.deployment() is not None
    sim.review = True
    outcome = sim.step()
    assert outcome.resolve is None
    assert outcome.reviewed


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", "[" * 200_000, '{"about": "x"}', '{"about": "x", "shown": 3, "told": []}']
)
def test_a_damaged_record_costs_no_more_than_another_event(offered: Simulation, text: str) -> None:
    shown = better(offered)
    offered.child("Deployment")["metadata"]["annotations"][names.BETTER_ANNOTATION] = text
    assert better(reviewed(offered)) == shown
    assert offered.events.count(("Normal", "BetterPlanFound")) == 2


def test_status_plan_stays_within_its_limit(offered: Simulation) -> None:
    plan = offered.resource["status"]["plan"]
    assert len(json.dumps(plan, separators=(",", ":"), ensure_ascii=False).encode()) <= PLAN_MAX_BYTES
