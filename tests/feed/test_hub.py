"""The workers' loop around an engine that the test writes."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from stowage.feed.grants import Grants
from stowage.feed.hub import Hub, Tools
from stowage.feed.models.resolutions import Resolutions
from stowage.feed.snapshot import Knowledge
from stowage.feed.verdicts import Verdicts
from stowage.feed.watchdog import Watchdog
from stowage.kube.applier import Applier
from stowage.kube.errors import Forbidden, Throttled, Unreachable
from stowage.kube.kinds import CONFIG_MAP, DEPLOYMENT, LLM_DEPLOYMENT, NODE, POD, RESOURCE_QUOTA
from stowage.kube.recorder import Recorder
from stowage.kube.store import Store
from stowage.kube.workqueue import Backoff, WorkQueue
from stowage.telemetry import Telemetry
from stowage.world import EngineOptions, EventIntent, Key, ObjectRef, Outcome, World
from stowage_runtime.contract import CheckpointSummary
from tests.feed.test_demand import deployment
from tests.feed.test_resolutions import SUMMARY, query
from tests.kube.fake_time import run
from tests.kube.objects import KEY, config_map, labels, llm, node, owner, pod
from tests.kube.test_applier import FakeServer

OTHER = Key("default", "other")
RESOURCE = ObjectRef("stowage.dev/v1alpha1", "LLMDeployment", "default", "llama")

Engine = Callable[[World, datetime], Outcome]


class Server(FakeServer):
    """May refuse applies, and gives other work a turn at every request, as a network does."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        super().__init__(*objects)
        self.refusal: Exception | Callable[[], Exception] | None = None
        self.events: list[str] = []

    async def apply(self, wanted: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.01)
        refusal = self.refusal() if callable(self.refusal) else self.refusal
        if refusal is not None:
            self.calls.append("refused")
            raise refusal
        return await super().apply(wanted)

    async def get(self, ref: ObjectRef) -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return await super().get(ref)

    async def create(self, obj: Mapping[str, Any]) -> Mapping[str, Any]:
        self.events.append(obj["reason"])
        return obj


class Rig:
    """A hub with all its parts on a server in memory."""

    def __init__(self, engine: Engine, *objects: dict[str, Any]) -> None:
        self.server, self.store = Server(*objects), Store()
        self.queue: WorkQueue[Key] = WorkQueue(lambda: 0.0, backoff=Backoff(1.0, 64.0, 0.0))
        self.recorder = Recorder(self.server, "test")  # type: ignore[arg-type]
        self.resolutions = Resolutions(self._read, self.queue.add_after)
        self.knowledge = Knowledge(
            store=self.store,
            grants=Grants(self.store),
            verdicts=Verdicts(),
            resolutions=self.resolutions,
            reports=lambda key: (),
            options=EngineOptions("agent:1", "0.32.0", {}),
        )
        applier = Applier(self.server, self.store)  # type: ignore[arg-type]
        self.telemetry = Telemetry()
        tools = Tools(engine, applier, self.recorder, self.queue, self.telemetry)
        self.hub = Hub(self.knowledge, tools, Watchdog(300.0), fan_out_seconds=5.0)

    async def _read(self, question: Any) -> CheckpointSummary:
        return SUMMARY

    def know(self, *objects: dict[str, Any]) -> None:
        kinds = {"LLMDeployment": LLM_DEPLOYMENT, "ConfigMap": CONFIG_MAP, "Pod": POD, "Node": NODE}
        for item in objects:
            self.hub.observe({**kinds, "Deployment": DEPLOYMENT}[item["kind"]], copy.deepcopy(item))

    async def work(self, seconds: float, workers: int = 2) -> None:
        tasks = [asyncio.create_task(self.hub.work()) for _ in range(workers)]
        tasks.append(asyncio.create_task(self.recorder.run()))
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def wanted(name: str = "llama-launch") -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "default",
        "labels": labels(),
        "ownerReferences": [owner("uid-llama")],
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"launch.json": "{}"}}


def converging(world: World, now: datetime) -> Outcome:
    status = {"replicas": 0, "taken": sorted(world.taken.values())}
    return Outcome(apply=(wanted(),), status=status, planned=True)


def writes(server: FakeServer) -> list[str]:
    return [call for call in server.calls if not call.startswith("get")]


def test_a_converged_object_costs_no_request_however_often_it_is_looked_at() -> None:
    async def scenario() -> tuple[list[str], list[str]]:
        rig = Rig(converging, llm())
        rig.know(llm())
        await rig.work(1.0)
        first = list(rig.server.calls)
        for _ in range(50):
            rig.hub.wake_all()
            await rig.work(0.5)
        return first, rig.server.calls[len(first) :]

    first, later = run(scenario())
    assert first == ["get ConfigMap", "apply ConfigMap", "status"]
    assert later == []


def test_a_name_that_is_taken_is_told_and_looked_at_again() -> None:
    foreign = config_map(labels={}, ownerReferences=[])

    async def scenario() -> tuple[Any, list[str], Any]:
        rig = Rig(converging, llm(), foreign)
        rig.know(llm())
        await rig.work(2.0)
        said = rig.server.objects[RESOURCE]["status"]["taken"]
        quiet = writes(rig.server)
        del rig.server.objects[ObjectRef.of(foreign)]
        await rig.work(120.0)
        return said, quiet, rig.server.objects[RESOURCE]["status"]["taken"]

    said, quiet, after = run(scenario())
    assert said == ["ConfigMap default/llama-launch, which Stowage did not make"]
    assert quiet == ["status"]
    assert after == []


def test_status_is_still_written_when_an_apply_is_refused_and_the_engine_is_told_why() -> None:
    told: list[str | None] = []

    def engine(world: World, now: datetime) -> Outcome:
        told.append(world.refused)
        return converging(world, now)

    async def scenario() -> Rig:
        rig = Rig(engine, llm())
        rig.know(llm())
        rig.server.refusal = Forbidden(403, "Forbidden", "admission webhook says no")
        await rig.work(20.0)
        rig.server.refusal = None
        await rig.work(60.0)
        return rig

    calls = writes(run(scenario()).server)
    assert calls.index("status") < calls.index("apply ConfigMap")
    assert calls.count("refused") >= 3
    assert told[:2] == [None, "admission webhook says no"]
    assert told[-1] is None


@pytest.mark.parametrize(
    ("error", "most"),
    [
        pytest.param(
            Unreachable(0, "Unreachable", "gone"), 7, id="a server that is away is asked ever slower"
        ),
        pytest.param(Throttled(429, "TooManyRequests", "slow", 20.0), 4, id="Retry-After is obeyed"),
    ],
)
def test_errors_back_off(error: Exception, most: int) -> None:
    async def scenario() -> int:
        rig = Rig(converging, llm())
        rig.know(llm())
        rig.server.refusal = error
        await rig.work(60.0)
        return rig.server.calls.count("refused")

    assert 2 <= run(scenario()) <= most


def test_an_engine_that_fails_holds_up_nobody_and_is_tried_again() -> None:
    seen: list[str] = []

    def engine(world: World, now: datetime) -> Outcome:
        seen.append(world.key.name)
        if world.key == KEY:
            raise ZeroDivisionError
        return Outcome(planned=not world.ahead)

    async def scenario() -> bool:
        rig = Rig(engine)
        rig.know(llm(), llm("other", creationTimestamp="2027-01-01T00:00:00Z"))
        await rig.work(10.0)
        other = rig.store.resource(OTHER)
        assert other is not None
        return rig.knowledge.verdicts.is_waiting(OTHER, other)

    assert run(scenario()) is False
    assert seen.count("llama") >= 3


def greedy(world: World, now: datetime) -> Outcome:
    """Asks for all eight GPUs of a node when they are free."""
    free = sum(room.free_gpus for room in world.inventory.nodes)
    if free < 8 and not world.children:
        return Outcome(status={"replicas": 0}, planned=True)
    made = deployment(1, 8)
    made["metadata"] = {
        "name": world.key.name,
        "namespace": "default",
        "labels": labels(world.key.name),
        "ownerReferences": [owner(f"uid-{world.key.name}")],
    }
    return Outcome(apply=(made,), status={"replicas": 1}, planned=True)


def test_two_workers_never_promise_the_same_gpus() -> None:
    names = [f"llm-{number}" for number in range(6)]

    async def scenario() -> list[int]:
        rig = Rig(greedy, *[llm(name) for name in names])
        rig.know(node("n1"), node("n2"), *[llm(name) for name in names])
        await rig.work(5.0, workers=6)
        return [rig.server.objects[RESOURCE._replace(name=name)]["status"]["replicas"] for name in names]

    assert sum(run(scenario())) == 2


def test_freed_gpus_reach_the_one_that_waits() -> None:
    async def scenario() -> tuple[int, int]:
        rig = Rig(greedy, llm())
        rig.know(node("n1"), pod("foreign", 2, node="n1", gpus=8), llm())
        await rig.work(3.0)
        before = rig.server.objects[RESOURCE]["status"]["replicas"]
        rig.hub.observe(POD, pod("foreign", 3, node="n1", gpus=8), deleted=True)
        await rig.work(10.0)
        return before, rig.server.objects[RESOURCE]["status"]["replicas"]

    assert run(scenario()) == (0, 1)


def test_a_node_change_wakes_everybody_and_a_foreign_pod_only_those_who_wait() -> None:
    looks: list[str] = []
    ready = {"observedGeneration": 1, "readyReplicas": 1, "conditions": [{"type": "Ready", "status": "True"}]}

    def engine(world: World, now: datetime) -> Outcome:
        looks.append(world.key.name)
        return Outcome(planned=True)

    async def scenario() -> tuple[list[str], list[str]]:
        rig = Rig(engine)
        rig.know({**llm(), "status": ready}, llm("other"))
        await rig.work(10.0)
        looks.clear()
        rig.know(pod("foreign", 50, node="n1", gpus=1))
        await rig.work(10.0)
        by_pod = sorted(looks)
        looks.clear()
        rig.know(node("n1", 60))
        await rig.work(10.0)
        return by_pod, sorted(looks)

    assert run(scenario()) == (["other"], ["llama", "other"])


def test_a_question_is_answered_in_a_later_world() -> None:
    answers: list[Any] = []

    def engine(world: World, now: datetime) -> Outcome:
        answers.append(world.resolution.state if world.resolution else None)
        return Outcome(resolve=query() if world.resolution is None else None)

    async def scenario() -> None:
        rig = Rig(engine)
        rig.know(llm())
        await rig.work(5.0)

    run(scenario())
    assert [type(answer).__name__ for answer in answers] == ["NoneType", "ModelResolved"]


def test_events_and_requeue_are_carried_out() -> None:
    looks: list[float] = []

    def engine(world: World, now: datetime) -> Outcome:
        looks.append(asyncio.get_running_loop().time())
        event = EventIntent("Normal", "Fits", "Plan", "It fits.")
        return Outcome(events=(event,), requeue_after=timedelta(seconds=30))

    async def scenario() -> list[str]:
        rig = Rig(engine)
        rig.know(llm())
        await rig.work(100.0)
        return rig.server.events

    assert run(scenario()) == ["Fits"]
    assert [round(later - looks[0]) for later in looks] == [0, 30, 60, 90]


def test_a_resource_that_is_gone_is_forgotten() -> None:
    async def scenario() -> tuple[bool, int]:
        rig = Rig(greedy, llm())
        rig.know(node("n1"), llm())
        await rig.work(2.0)
        assert rig.knowledge.grants.waiting(OTHER)
        rig.hub.observe(DEPLOYMENT, {**deployment(1, 8), "metadata": _gone("llama")}, deleted=True)
        rig.hub.observe(LLM_DEPLOYMENT, llm(version=999), deleted=True)
        await rig.work(2.0)
        return bool(rig.knowledge.grants.waiting(OTHER)), b"desired_replicas{" in rig.telemetry.render()

    assert run(scenario()) == (False, False)


def _gone(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": "default",
        "labels": labels(name),
        "uid": "x",
        "resourceVersion": "998",
    }


def test_an_ended_inspection_pod_is_seen_although_the_watch_hides_it() -> None:
    phases: list[list[str]] = []

    def engine(world: World, now: datetime) -> Outcome:
        phases.append([obj["status"]["phase"] for ref, obj in world.children.items() if ref.kind == "Pod"])
        return Outcome()

    ended = pod("llama-inspect", 8, own="llama", role="inspect", phase="Failed")

    async def scenario() -> None:
        rig = Rig(engine, ended)
        rig.know(llm(), pod("llama-inspect", 5, own="llama", role="inspect"))
        await rig.work(1.0)
        rig.hub.observe(POD, {**ended, "status": {"phase": "Running"}}, deleted=True)
        await rig.work(1.0)

    run(scenario())
    assert phases[0] == ["Running"]
    assert phases[-1] == ["Failed"]


def test_a_server_pod_that_its_node_rejects_is_seen_although_the_watch_hides_it() -> None:
    seen: list[tuple[int, str | None]] = []

    def engine(world: World, now: datetime) -> Outcome:
        ended = world.ended_pod
        seen.append((len(world.pods), None if ended is None else ended["status"]["phase"]))
        return Outcome()

    failed = pod("llama-x", 8, own="llama", phase="Failed")

    async def scenario() -> None:
        rig = Rig(engine, failed)
        rig.know(llm(), pod("llama-x", 5, own="llama"))
        await rig.work(1.0)
        rig.hub.observe(POD, {**failed, "status": {"phase": "Pending"}}, deleted=True)
        await rig.work(1.0)

    run(scenario())
    assert seen[0] == (1, None)
    assert seen[-1] == (0, "Failed")


def test_work_that_is_due_at_once_lets_others_have_a_turn() -> None:
    """Nothing of this waits for a network, so only the worker itself can give the event loop back."""
    calls = 0

    def engine(world: World, now: datetime) -> Outcome:
        nonlocal calls
        calls += 1
        if calls > 1000:
            raise RuntimeError("the worker kept the event loop to itself")
        return Outcome(requeue_after=timedelta(0))

    async def scenario() -> None:
        rig = Rig(engine)
        rig.know(llm())
        worker = asyncio.create_task(rig.hub.work())
        for _ in range(20):
            await asyncio.sleep(0)
        worker.cancel()
        rig.queue.close()

    run(scenario())
    assert 0 < calls < 100


def test_a_refusal_in_ever_new_words_backs_off_and_the_newest_words_are_kept() -> None:
    numbers = iter(range(10_000))
    told: list[str | None] = []

    def engine(world: World, now: datetime) -> Outcome:
        told.append(world.refused)
        return converging(world, now)

    async def scenario() -> int:
        rig = Rig(engine, llm())
        rig.know(llm())
        rig.server.refusal = lambda: Forbidden(403, "Forbidden", f"denied, request {next(numbers)}")
        await rig.work(60.0)
        return rig.server.calls.count("refused")

    assert 3 <= run(scenario()) <= 8
    assert told[:3] == [None, "denied, request 0", "denied, request 1"]


def test_what_the_server_refuses_is_granted_to_nobody() -> None:
    async def scenario() -> bool:
        rig = Rig(greedy, llm())
        rig.know(node("n1"), llm())
        rig.server.refusal = Forbidden(403, "Forbidden", "admission webhook says no")
        await rig.work(10.0)
        return bool(rig.knowledge.grants.waiting(OTHER))

    assert run(scenario()) is False


def test_the_status_of_a_deleted_object_is_not_written_onto_its_namesake() -> None:
    """The object is deleted and made again while its children are applied."""

    async def scenario() -> list[str]:
        rig = Rig(converging, llm(uid="second", version=50))
        rig.know(llm())
        reached = rig.server.apply

        async def apply(wanted: dict[str, Any]) -> dict[str, Any]:
            rig.know(llm(uid="second", version=50))
            return await reached(wanted)

        rig.server.apply = apply  # type: ignore[method-assign]
        await rig.hub.process(KEY)
        return writes(rig.server)

    assert run(scenario()) == ["apply ConfigMap"]


def test_an_api_error_loses_no_pod_that_has_to_be_looked_at() -> None:
    names = ("llama-inspect-1", "llama-inspect-2")
    live = [pod(name, 5, own="llama", role="inspect") for name in names]

    async def scenario() -> tuple[str, ...]:
        rig = Rig(lambda world, now: Outcome(), llm())
        rig.know(llm(), *live)
        for item in live:
            rig.hub.observe(
                POD, {**item, "metadata": {**item["metadata"], "resourceVersion": "6"}}, deleted=True
            )
        reachable = rig.server.get

        async def away(ref: ObjectRef) -> dict[str, Any]:
            raise Unreachable(0, "Unreachable", "gone")

        rig.server.get = away  # type: ignore[method-assign]
        await rig.work(0.5)
        rig.server.get = reachable  # type: ignore[method-assign]
        rig.server.objects |= {
            ObjectRef.of(item): {**item, "metadata": {**item["metadata"], "resourceVersion": "7"}}
            for item in live
        }
        await rig.work(20.0)
        return tuple(sorted(ref.name for ref in rig.store.children(KEY)))

    assert run(scenario()) == names


def test_room_is_offered_to_the_oldest_first() -> None:
    looks: list[str] = []

    def engine(world: World, now: datetime) -> Outcome:
        looks.append(world.key.name)
        return Outcome(planned=True)

    async def scenario() -> None:
        rig = Rig(engine)
        for name, day in (("b", 3), ("c", 2), ("a", 3)):
            rig.know(llm(name, creationTimestamp=f"2026-01-0{day}T00:00:00Z"))
        await rig.work(10.0, workers=1)
        looks.clear()
        rig.hub.wake_all()
        await rig.work(10.0, workers=1)
        rig.know(node("n1"))
        await rig.work(10.0, workers=1)

    run(scenario())
    assert looks == ["c", "a", "b"] * 2


def test_a_quota_for_one_is_promised_to_one() -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": "default", "uid": "q", "resourceVersion": "1"},
        "status": {"hard": {"requests.nvidia.com/gpu": "8"}, "used": {}},
    }
    names = ("one", "two")

    def engine(world: World, now: datetime) -> Outcome:
        (room,) = world.inventory.quotas
        if room.room["requests.nvidia.com/gpu"] < 8:
            return Outcome(status={"replicas": 0}, planned=True)
        return greedy(world, now)

    async def scenario() -> list[int]:
        rig = Rig(engine, *[llm(name) for name in names])
        rig.hub.observe(RESOURCE_QUOTA, quota)
        rig.know(node("n1"), node("n2"), *[llm(name) for name in names])
        await rig.work(5.0)
        return [rig.server.objects[RESOURCE._replace(name=name)]["status"]["replicas"] for name in names]

    assert sum(run(scenario())) == 1


def test_nothing_is_said_or_written_before_the_engine_has_seen_an_object_that_was_hidden() -> None:
    hidden = config_map(labels={}, ownerReferences=[owner("uid-llama")])
    seen: list[int] = []

    def engine(world: World, now: datetime) -> Outcome:
        seen.append(len(world.children))
        return Outcome(apply=(wanted(),), status={"replicas": len(world.children)}, planned=True)

    async def scenario() -> list[str]:
        rig = Rig(engine, llm(), hidden)
        rig.know(llm())
        await rig.work(20.0)
        return writes(rig.server)

    assert run(scenario()) == ["apply ConfigMap", "status"]
    assert seen[:2] == [0, 1]
