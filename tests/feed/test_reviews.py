"""When a plan in force is reviewed, and what start-ups of all Deployments teach every World."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from typing import Any

from stowage.engine.start_up_record import StartUp, start_ups_json
from stowage.kube.errors import Forbidden
from stowage.kube.kinds import LLM_DEPLOYMENT
from stowage.memory.calibration import UNCALIBRATED, CalibrationKey, StartRecord, Terms
from stowage.render import names
from stowage.world import Outcome, World
from tests.feed.test_demand import deployment
from tests.feed.test_hub import Rig, wanted
from tests.kube.fake_time import run
from tests.kube.objects import KEY, labels, llm

CALIBRATION_KEY = CalibrationKey("0.32", "NVIDIA-L4", 1, 1, "LlamaForCausalLM", 16, 2048)
RECORD = StartRecord(CALIBRATION_KEY, Terms(1, 2, 3), Terms(4, 5, 6), 15, 0, 0, cuda_graphs_counted=True)
START = StartUp("a", "2026-01-01T00:00:00Z", "0.1.0", RECORD)


class Reviewer:
    """An engine that notes when a review was due, and says whether it has made one."""

    def __init__(self, *, makes_one: bool) -> None:
        self.makes_one = makes_one
        self.due: list[bool] = []

    def __call__(self, world: World, now: datetime) -> Outcome:
        self.due.append(world.review)
        return Outcome(apply=(wanted(),), status={"replicas": 0}, planned=True, reviewed=self.makes_one)


def looked_at(engine: Reviewer, rounds: int, refusal: Exception | None = None) -> list[bool]:
    async def scenario() -> list[bool]:
        rig = Rig(engine, llm())
        rig.know(llm())
        rig.server.refusal = refusal
        rig.hub.review_all()
        for _ in range(rounds):
            rig.hub.wake(KEY)
            await rig.work(0.5)
        return engine.due

    found: list[bool] = run(scenario())
    return found


def test_a_review_is_due_until_it_was_made_and_then_not_before_the_next_resync() -> None:
    assert looked_at(Reviewer(makes_one=True), 3)[:3] == [True, False, False]


def test_one_that_could_not_be_made_stays_due() -> None:
    assert set(looked_at(Reviewer(makes_one=False), 3)) == {True}


def test_one_whose_outcome_could_not_be_carried_out_counts_as_not_made() -> None:
    due = looked_at(Reviewer(makes_one=True), 2, Forbidden(403, "Forbidden", "no"))
    assert due[:2] == [True, True]


def test_who_is_gone_is_not_reviewed() -> None:
    async def scenario() -> set[Any]:
        rig = Rig(Reviewer(makes_one=False), llm())
        rig.know(llm())
        rig.hub.review_all()
        rig.hub.observe(LLM_DEPLOYMENT, llm(version=2), deleted=True)
        await rig.work(0.5)
        return rig.knowledge.reviews

    assert run(scenario()) == set()


def measured(name: str, *start_ups: StartUp, version: int = 1) -> dict[str, Any]:
    found = deployment(1, 1)
    found["metadata"] |= {
        "name": name,
        "labels": labels(name),
        "annotations": {names.START_UPS_ANNOTATION: start_ups_json(start_ups)} if start_ups else {},
        "resourceVersion": str(version),
        "uid": f"deploy-{name}",
    }
    return found


def test_what_is_written_on_any_deployment_teaches_every_world_and_is_read_once() -> None:
    async def scenario() -> None:
        rig = Rig(Reviewer(makes_one=True))
        assert rig.knowledge.world(KEY).calibration is UNCALIBRATED
        rig.know(measured("other", START))
        learnt = rig.knowledge.world(KEY).calibration
        assert learnt.starts(CALIBRATION_KEY) == 1
        assert rig.knowledge.world(KEY).calibration is learnt
        rig.know(measured("llama", replace(START, start="b")))
        assert rig.knowledge.world(KEY).calibration.starts(CALIBRATION_KEY) == 2
        rig.know(measured("other", version=2), measured("llama", version=2))
        assert rig.knowledge.world(KEY).calibration == UNCALIBRATED

    asyncio.run(scenario())
