"""Invariants of the whole decision, over random clusters and random histories of edits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stowage.engine import reconcile
from stowage.engine.record import read_in_force
from stowage.engine.room import released_room
from stowage.engine.situation import read_situation
from stowage.hardware.inventory import pod_usage, release
from stowage.planning.placement import place_replicas
from stowage.render import names
from stowage.render.pod_template import template_hash
from tests.engine.simulation import Simulation, gpu_node
from tests.engine.test_start_ups import learnt
from tests.engine.test_start_ups import report as report_start

EDITS: list[dict[str, Any]] = [
    {"replicas": 0},
    {"replicas": 1},
    {"replicas": 3},
    {"replicas": 7},
    {"parallelism": {"tensor": 1}},
    {"parallelism": {"tensor": 2}},
    {"parallelism": {"tensor": 3}},
    {"parallelism": {"tensor": 4}},
    {"parallelism": {}},
    {"engine": {"maxNumSeqs": 16}},
    {"engine": {}},
    {"rollout": {"strategy": "Surge"}},
    {"rollout": {"strategy": "InPlace"}},
    {"runtime": {"env": [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}]}},
    {"workload": {"requestsPerSecond": 4.0}},
    {"workload": {}},
]

ACTION_NAMES = (
    "run",
    "not ready",
    "cordon",
    "node gone",
    "node back",
    "status lost",
    "upgrade",
    "report",
    "measured",
    "review",
    "larger node",
)

node_counts = st.lists(st.integers(0, 4), min_size=1, max_size=3)
histories = st.lists(
    st.one_of(
        st.sampled_from(EDITS),
        st.sampled_from(sorted(ACTION_NAMES)),
    ),
    min_size=1,
    max_size=6,
)


def cordon(sim: Simulation) -> None:
    sim.nodes[0]["spec"]["unschedulable"] = True


def node_gone(sim: Simulation) -> None:
    sim.nodes[0]["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]


def node_back(sim: Simulation) -> None:
    sim.nodes[0]["spec"].pop("unschedulable", None)
    sim.nodes[0]["status"]["conditions"] = [{"type": "Ready", "status": "True"}]


def report(sim: Simulation) -> None:
    if sim.deployment() is not None:
        sim.report()


def measured(sim: Simulation) -> None:
    """All agents report a whole start, and what was measured before teaches the next plan."""
    if sim.deployment() is not None:
        report_start(sim, more_gib=0.1 * len(sim.nodes))
        sim.calibration = learnt(sim)


def review(sim: Simulation) -> None:
    """From now on a review is due all the time."""
    sim.review = True


def larger_node(sim: Simulation) -> None:
    if len(sim.nodes) < 5:
        sim.nodes.append(gpu_node(f"h100-{len(sim.nodes)}", 2, "NVIDIA-H100-80GB-HBM3", 81559, "9.0"))


ACTIONS: dict[str, Callable[[Simulation], Any]] = {
    "run": lambda sim: sim.run_placeable_pods(ready=True),
    "not ready": lambda sim: sim.run_placeable_pods(ready=False),
    "cordon": cordon,
    "node gone": node_gone,
    "node back": node_back,
    "status lost": lambda sim: sim.resource.pop("status", None),
    "upgrade": lambda sim: sim.upgrade(f"9.9.{sim.created}"),
    "report": report,
    "measured": measured,
    "review": review,
    "larger node": larger_node,
}


def act(sim: Simulation, action: dict[str, Any] | str) -> None:
    if isinstance(action, dict):
        sim.edit(**action)
    else:
        ACTIONS[action](sim)


def play(counts: list[int], history: list[dict[str, Any] | str]) -> Simulation:
    sim = Simulation(nodes=[gpu_node(f"gpu-{index}", count) for index, count in enumerate(counts)])
    sim.settle()
    for action in history:
        act(sim, action)
        sim.settle(2)
    return sim


budget = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@budget
@given(node_counts, histories)
def test_asked_twice_it_says_the_same(counts: list[int], history: list[dict[str, Any] | str]) -> None:
    sim = play(counts, history)
    sim.settle()
    assert reconcile(sim.world, sim.now) == reconcile(sim.world, sim.now)


@budget
@given(node_counts, histories)
def test_a_world_that_does_not_change_comes_to_rest(
    counts: list[int], history: list[dict[str, Any] | str]
) -> None:
    sim = play(counts, history)
    sim.settle(4)
    first = sim.step()
    second = sim.step()
    assert first.apply == second.apply
    assert first.status == second.status
    assert second.events == ()


@budget
@given(node_counts, histories)
def test_no_replica_is_asked_for_that_neither_runs_nor_has_a_place(
    counts: list[int], history: list[dict[str, Any] | str]
) -> None:
    sim = play(counts, history)
    sim.settle()
    deployment = sim.deployment()
    if deployment is None:
        return
    record = read_in_force(deployment)
    assert record is not None
    world = sim.world
    assert world.resource is not None
    situation = read_situation(world, world.resource)
    current = [pod for pod in world.pods if template_hash(pod) == record.template_hash]
    older = [pod_usage(pod) for pod in world.pods if template_hash(pod) != record.template_hash]
    beside = place_replicas(record.plan, release(world.inventory, older), 100)
    anew = place_replicas(record.plan, released_room(situation), 100)
    assert deployment["spec"]["replicas"] <= max(len(anew), len(current) + len(beside))


@settings(budget, max_examples=15)
@given(node_counts, histories)
def test_a_review_changes_nothing_that_runs(counts: list[int], history: list[dict[str, Any] | str]) -> None:
    sim = play(counts, history)
    sim.settle()
    larger_node(sim)
    twin = copy.deepcopy(sim)
    sim.review, twin.review = True, False
    sim.settle()
    twin.settle()
    assert [running(each) for each in (sim, twin)] == [running(twin)] * 2


def running(sim: Simulation) -> Any:
    """What the live Deployment runs, and what it is remembered to be made from."""
    deployment = sim.deployment()
    if deployment is None:
        return None
    return deployment["spec"], deployment["metadata"]["annotations"][names.IN_FORCE_ANNOTATION]


@budget
@given(node_counts, histories)
def test_ready_means_that_this_generation_serves(
    counts: list[int], history: list[dict[str, Any] | str]
) -> None:
    sim = play(counts, history)
    sim.settle()
    if sim.condition("Ready")[0] != "True":
        return
    assert sim.condition("Accepted")[0] == sim.condition("Planned")[0] == "True"
    deployment = sim.deployment()
    assert deployment is not None
    wanted = template_hash(deployment["spec"]["template"])
    assert sim.pods
    assert {template_hash(pod) for pod in sim.pods} == {wanted}
