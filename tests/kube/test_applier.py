from __future__ import annotations

import copy
from typing import Any

import pytest

from stowage.kube.applier import Applier, Decision, Remembered, decide, live_digest
from stowage.kube.errors import Conflict, NotFound
from stowage.kube.kinds import CONFIG_MAP, POD
from stowage.kube.store import Store
from stowage.render.canonical import digest
from stowage.world import ObjectRef
from tests.kube.objects import KEY, config_map, labels, llm, owner, pod

REF = ObjectRef("v1", "ConfigMap", "default", "llama-launch")


def intent(data: str = "{}") -> dict[str, Any]:
    metadata = {
        "name": "llama-launch",
        "namespace": "default",
        "labels": labels(),
        "ownerReferences": [owner()],
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"launch.json": data}}


def remembered(live: dict[str, Any], wanted: dict[str, Any]) -> Remembered:
    return Remembered(live["metadata"]["uid"], live_digest(live), digest(wanted, 64))


OURS = config_map()
CHANGED = {**config_map(version=9), "data": {"launch.json": "edited by hand"}}
TOUCHED = {**config_map(version=9), "status": {"seen": True}}
DELETING = config_map(deletionTimestamp="2026-01-01T00:00:00Z")
FOREIGN = config_map(ownerReferences=[], labels={"app.kubernetes.io/managed-by": "Helm"})
EARLIER = config_map(ownerReferences=[owner("an earlier uid")])
OTHER_KIND = config_map(ownerReferences=[{**owner("other"), "kind": "Deployment", "apiVersion": "apps/v1"}])
OTHER_NAME = config_map(ownerReferences=[owner("other", "web")])
ORPHAN = config_map(ownerReferences=[])
NAMESAKE = config_map(ownerReferences=[], labels=labels("another"))


@pytest.mark.parametrize(
    ("live", "known", "expected"),
    [
        pytest.param(None, None, Decision.VERIFY, id="a name that is not cached is verified first"),
        pytest.param(OURS, None, Decision.APPLY, id="our object is applied once after a restart"),
        pytest.param(OURS, remembered(OURS, intent()), Decision.SKIP, id="nothing changed: no request"),
        pytest.param(
            TOUCHED, remembered(OURS, intent()), Decision.SKIP, id="only its status changed: no request"
        ),
        pytest.param(CHANGED, remembered(OURS, intent()), Decision.APPLY, id="edited by hand: put back"),
        pytest.param(OURS, remembered(OURS, intent("{1}")), Decision.APPLY, id="another intent is applied"),
        pytest.param(DELETING, None, Decision.WAIT, id="what is being deleted gets no apply"),
        pytest.param(FOREIGN, None, Decision.TAKEN, id="somebody else's object is not touched"),
        pytest.param(EARLIER, None, Decision.WAIT, id="what an earlier namesake left is being collected"),
        pytest.param(OTHER_KIND, None, Decision.TAKEN, id="a controller of another kind is no earlier one"),
        pytest.param(OTHER_NAME, None, Decision.TAKEN, id="another LLMDeployment is no earlier one"),
        pytest.param(ORPHAN, None, Decision.APPLY, id="an orphan of ours is adopted"),
        pytest.param(NAMESAKE, None, Decision.TAKEN, id="an orphan of another LLMDeployment is not"),
    ],
)
def test_decision(live: dict[str, Any] | None, known: Remembered | None, expected: Decision) -> None:
    assert decide(digest(intent(), 64), live, known, KEY, "owner-1") is expected


class FakeServer:
    """Holds objects and counts requests; enough of a client for the decisions of the applier."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects = {ObjectRef.of(item): copy.deepcopy(item) for item in objects}
        self.calls: list[str] = []
        self.version = 100

    async def get(self, ref: ObjectRef) -> dict[str, Any]:
        self.calls.append(f"get {ref.kind}")
        return self._find(ref)

    async def apply(self, wanted: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(f"apply {wanted['kind']}")
        ref = ObjectRef.of(wanted)
        live = self.objects.get(ref)
        uid = wanted["metadata"].get("uid")
        if uid is not None and (live is None or live["metadata"]["uid"] != uid):
            raise Conflict(409, "Conflict", "uid mismatch")
        return self._store(ref, wanted, live)

    async def apply_status(self, wanted: dict[str, Any]) -> dict[str, Any]:
        self.calls.append("status")
        ref = ObjectRef.of(wanted)
        return self._store(ref, {"status": wanted["status"]}, self._find(ref))

    async def delete(self, ref: ObjectRef, uid: str) -> dict[str, Any]:
        self.calls.append(f"delete {ref.name}")
        if self._find(ref)["metadata"]["uid"] != uid:
            raise Conflict(409, "Conflict", "uid mismatch")
        del self.objects[ref]
        return {"kind": "Status"}

    def _find(self, ref: ObjectRef) -> dict[str, Any]:
        if ref not in self.objects:
            raise NotFound(404, "NotFound", "not there")
        return copy.deepcopy(self.objects[ref])

    def _store(self, ref: ObjectRef, wanted: dict[str, Any], live: dict[str, Any] | None) -> dict[str, Any]:
        self.version += 1
        metadata = {
            "uid": f"made-{self.version}",
            **(live or {}).get("metadata", {}),
            **wanted.get("metadata", {}),
        }
        metadata["resourceVersion"] = str(self.version)
        self.objects[ref] = {**(live or {}), **wanted, "metadata": metadata}
        return copy.deepcopy(self.objects[ref])


def applier(server: FakeServer, store: Store) -> Applier:
    return Applier(server, store)  # type: ignore[arg-type]


async def test_the_first_apply_looks_first_and_the_second_one_does_nothing() -> None:
    server, store = FakeServer(), Store()
    subject = applier(server, store)
    first = await subject.apply(KEY, "owner-1", [intent()])
    second = await subject.apply(KEY, "owner-1", [intent()])
    assert (first.writes, second.writes, second.skipped) == (1, 0, 1)
    assert server.calls == ["get ConfigMap", "apply ConfigMap"]


async def test_a_foreign_object_stops_everything_and_is_described() -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "llama", "namespace": "default", "uid": "s", "labels": {}},
    }
    server, store = FakeServer(service), Store()
    wanted = {**intent(), "kind": "Service", "metadata": {**intent()["metadata"], "name": "llama"}}
    applied = await applier(server, store).apply(KEY, "owner-1", [intent(), wanted])
    assert applied.writes == 0
    assert applied.taken == {
        ObjectRef("v1", "Service", "default", "llama"): "Service default/llama, which Stowage did not make"
    }
    assert [call for call in server.calls if not call.startswith("get")] == []


async def test_the_name_is_ours_once_the_foreign_object_is_gone() -> None:
    server, store = FakeServer(FOREIGN), Store()
    subject = applier(server, store)
    assert (await subject.apply(KEY, "owner-1", [intent()])).taken
    server.objects.clear()
    assert (await subject.apply(KEY, "owner-1", [intent()])).writes == 1


async def test_an_object_replaced_behind_our_back_is_looked_at_again() -> None:
    server, store = FakeServer(config_map(uid="reborn")), Store()
    store.observe(CONFIG_MAP, config_map(uid="old"))
    subject = applier(server, store)
    first = await subject.apply(KEY, "owner-1", [intent()])
    assert (first.stale, first.writes) == (True, 0)
    store.observe(CONFIG_MAP, config_map(uid="reborn", version=50))
    assert (await subject.apply(KEY, "owner-1", [intent()])).writes == 1


async def test_delete_names_the_uid_and_skips_what_is_going() -> None:
    server, store = FakeServer(config_map()), Store()
    store.observe(CONFIG_MAP, config_map())
    store.observe(POD, pod("going", own="llama", deletionTimestamp="2026-01-01T00:00:00Z"))
    refs = [REF, ObjectRef("v1", "Pod", "default", "going"), ObjectRef("v1", "Pod", "default", "absent")]
    assert (await applier(server, store).delete(KEY, refs)).writes == 1
    assert server.calls == ["delete llama-launch"]


async def test_delete_of_a_successor_is_refused_and_the_successor_looked_at() -> None:
    server, store = FakeServer(config_map(uid="reborn", version=7)), Store()
    store.observe(CONFIG_MAP, config_map(uid="old"))
    removed = await applier(server, store).delete(KEY, [REF])
    assert (removed.stale, set(removed.change.keys)) == (False, {KEY})
    known = store.get(REF)
    assert known is not None
    assert known["metadata"]["uid"] == "reborn"
    assert server.objects


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="the watch is late"),
        pytest.param({"labels": {"of": "somebody"}}, id="its labels were removed by hand"),
        pytest.param(
            {"deletionTimestamp": "2026-01-01T00:00:00Z", "labels": {}}, id="it is being deleted as well"
        ),
    ],
)
async def test_an_object_of_ours_that_was_hidden_is_shown_to_the_engine_before_it_is_written(
    changes: dict[str, Any],
) -> None:
    """What the intent was made from did not include it: it may hold the record of the plan in force."""
    hidden = config_map(version=7, **changes)
    server, store = FakeServer(hidden), Store()
    subject = applier(server, store)
    first = await subject.apply(KEY, "owner-1", [{**intent(), "kind": "Service"}, intent("new")])
    assert (first.writes, first.stale, set(first.change.keys)) == (0, True, {KEY})
    assert [dict(live["metadata"]) for live in store.children(KEY).values()] == [hidden["metadata"]]
    second = await subject.apply(KEY, "owner-1", [intent()])
    assert (second.writes, second.stale) == ((0, False) if "deletionTimestamp" in changes else (1, False))


async def test_a_hidden_object_of_somebody_else_is_not_shown_to_the_engine() -> None:
    server, store = FakeServer(config_map(ownerReferences=[owner("other", "web")], labels={})), Store()
    assert (await applier(server, store).apply(KEY, "owner-1", [intent()])).taken
    assert store.children(KEY) == {}


async def test_status_is_written_once_and_again_only_when_it_differs() -> None:
    server, store = FakeServer(llm()), Store()
    subject = applier(server, store)
    ref = ObjectRef("stowage.dev/v1alpha1", "LLMDeployment", "default", "llama")
    written = [await subject.apply_status(server.objects[ref], {"replicas": 1}) for _ in range(2)]
    written.append(await subject.apply_status(server.objects[ref], {"replicas": 2}))
    assert written == [True, False, True]


async def test_the_status_of_a_resource_that_is_gone_is_no_error() -> None:
    assert await applier(FakeServer(), Store()).apply_status(llm(), {"replicas": 1}) is False
