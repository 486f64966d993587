from __future__ import annotations

from typing import Any

import pytest

from stowage.kube.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    LLM_DEPLOYMENT,
    NODE,
    POD,
    REPLICA_SET,
    RESOURCE_QUOTA,
    Kind,
)
from stowage.kube.store import Store
from stowage.kube.versions import is_newer
from stowage.world import Key, ObjectRef
from tests.kube.objects import KEY, config_map, labels, llm, node, owner, pod

MAP = ObjectRef("v1", "ConfigMap", "default", "llama-launch")


@pytest.mark.parametrize(
    ("candidate", "known", "newer"),
    [
        pytest.param("10", "9", True, id="versions are compared as numbers, not as text"),
        pytest.param("9", "10", False, id="an older version is not newer"),
        pytest.param("7", "7", False, id="the same version is not newer"),
        pytest.param("opaque", "10", True, id="a version that is no number counts as newer"),
    ],
)
def test_order_of_versions(candidate: str, known: str, newer: bool) -> None:
    assert is_newer(candidate, known) is newer


def test_an_older_version_never_replaces_a_newer_one() -> None:
    store = Store()
    store.observe(CONFIG_MAP, config_map(version=20))
    change = store.observe(CONFIG_MAP, config_map(version=11, labels=labels("other")))
    assert change.keys == frozenset()
    live = store.get(MAP)
    assert live is not None
    assert live["metadata"]["resourceVersion"] == "20"


def test_the_answer_to_our_own_write_is_not_news_when_the_watch_repeats_it() -> None:
    store = Store()
    assert store.observe(CONFIG_MAP, config_map(version=5)).keys == {KEY}
    assert store.observe(CONFIG_MAP, config_map(version=5)).keys == frozenset()


def test_a_child_belongs_to_the_key_in_its_label_and_moves_with_it() -> None:
    store = Store()
    store.observe(CONFIG_MAP, config_map(version=1))
    change = store.observe(CONFIG_MAP, config_map(version=2, labels=labels("other")))
    assert change.keys == {KEY, Key("default", "other")}
    assert store.children(KEY) == {}
    assert list(store.children(Key("default", "other"))) == [MAP]


def test_managed_fields_are_not_kept() -> None:
    store = Store()
    store.observe(CONFIG_MAP, config_map(managedFields=[{"manager": "x"}]))
    live = store.get(MAP)
    assert live is not None
    assert "managedFields" not in live["metadata"]


def test_server_pods_and_children_are_kept_apart() -> None:
    store = Store()
    store.observe(POD, pod("llama-1", own="llama"))
    store.observe(POD, pod("llama-inspect", own="llama", role="inspect"))
    assert [item["metadata"]["name"] for item in store.server_pods(KEY)] == ["llama-1"]
    assert [ref.name for ref in store.children(KEY)] == ["llama-inspect"]


def test_of_a_foreign_pod_only_place_and_requests_are_kept() -> None:
    store = Store()
    store.observe(POD, pod("foreign", node="n1", gpus=2))
    assert store.get(ObjectRef("v1", "Pod", "default", "foreign")) is None
    (usage,) = store.bound_usages()
    assert (usage.node_name, usage.requests.count("nvidia.com/gpu")) == ("n1", 2)


def test_a_pod_without_a_node_holds_no_room() -> None:
    store = Store()
    store.observe(POD, pod("waiting", gpus=2))
    assert list(store.bound_usages()) == []


@pytest.mark.parametrize(
    ("kind", "before", "after", "moved"),
    [
        pytest.param(NODE, node("n1", 1), node("n1", 2), False, id="a heartbeat of a node"),
        pytest.param(NODE, node("n1", 1), node("n1", 2, gpus=4), True, id="a node with fewer GPUs"),
        pytest.param(NODE, node("n1", 1), node("n1", 2, unschedulable=True), True, id="a cordoned node"),
        pytest.param(POD, pod("p", 1), pod("p", 2, node="n1"), True, id="a pod that is bound"),
        pytest.param(
            POD,
            pod("p", 1, node="n1"),
            pod("p", 2, node="n1", labels={"a": "b"}),
            False,
            id="a relabelled pod",
        ),
        pytest.param(
            POD,
            pod("p", 1, node="n1"),
            pod("p", 2, node="n1", phase="Succeeded"),
            True,
            id="a pod that has ended",
        ),
    ],
)
def test_only_changes_of_room_count_as_such(
    kind: Any, before: dict[str, Any], after: dict[str, Any], moved: bool
) -> None:
    store = Store()
    store.observe(kind, before)
    version = store.room_version
    change = store.observe(kind, after)
    assert (change.nodes or change.usage) is moved
    assert (store.room_version != version) is moved


def test_a_list_removes_what_the_watch_failed_to_report_as_gone() -> None:
    store = Store()
    store.observe(CONFIG_MAP, config_map("llama-launch", 5))
    store.observe(CONFIG_MAP, config_map("llama-ghost", 6))
    change = store.replace(CONFIG_MAP, [config_map("llama-launch", 5)], "50", None)
    assert change.ghosts == 1
    assert change.keys == {KEY}
    assert [ref.name for ref in store.children(KEY)] == ["llama-launch"]


def test_a_list_does_not_remove_what_was_made_after_it() -> None:
    store = Store()
    store.observe(CONFIG_MAP, config_map("llama-new", 60))
    assert store.replace(CONFIG_MAP, [], "50", None).ghosts == 0
    assert len(store.children(KEY)) == 1


def test_a_list_of_one_namespace_says_nothing_about_others() -> None:
    store = Store()
    store.observe(CONFIG_MAP, config_map("llama-launch", 5))
    assert store.replace(CONFIG_MAP, [], "50", "elsewhere").ghosts == 0


def test_a_list_names_what_the_watch_had_not_delivered() -> None:
    store = Store()
    store.observe(CONFIG_MAP, config_map("known", 5))
    items = [config_map("known", 5), config_map("news", 7)]
    assert store.replace(CONFIG_MAP, items, "50", None).updates == (("uid-news", "7"),)


def test_a_stale_list_does_not_bring_a_deleted_object_back() -> None:
    store = Store()
    store.observe(CONFIG_MAP, config_map(version=5))
    store.observe(CONFIG_MAP, config_map(version=9), deleted=True)
    store.replace(CONFIG_MAP, [config_map(version=5)], "8", None)
    assert store.get(MAP) is None


def test_an_object_that_had_left_the_selector_may_come_back() -> None:
    store = Store()
    store.observe(CONFIG_MAP, config_map(version=5))
    store.observe(CONFIG_MAP, config_map(version=9), deleted=True)
    store.observe(CONFIG_MAP, config_map(version=11))
    assert store.get(MAP) is not None


def test_the_deletion_of_an_earlier_object_leaves_its_successor_alone() -> None:
    store = Store()
    store.observe(CONFIG_MAP, config_map(version=20, uid="second"))
    store.observe(CONFIG_MAP, config_map(version=9, uid="first"), deleted=True)
    assert store.get(MAP) is not None


def test_an_ended_pod_is_not_pruned_and_is_named_for_a_closer_look() -> None:
    store = Store()
    ended = pod("llama-inspect", 7, own="llama", role="inspect", phase="Failed")
    store.observe(POD, ended, deleted=True)
    store.observe(POD, ended)
    store.replace(POD, [], "50", None)
    (ref,) = store.ended(KEY)
    assert ref.name == "llama-inspect"
    store.drop(ref)
    assert store.ended(KEY) == ()


def test_drop_with_a_uid_spares_a_successor() -> None:
    store = Store()
    store.observe(CONFIG_MAP, config_map(version=20, uid="second"))
    store.drop(MAP, "first")
    assert store.get(MAP) is not None


def test_a_quota_is_read_by_namespace_and_its_change_is_told() -> None:
    store = Store()
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": "default", "uid": "q", "resourceVersion": "1"},
        "status": {"hard": {"requests.nvidia.com/gpu": "4"}},
    }
    assert store.observe(RESOURCE_QUOTA, quota).quota_namespaces == {"default"}
    assert len(store.quotas("default")) == 1
    assert store.quotas("other") == ()


def test_a_deleted_resource_leaves_its_children_known() -> None:
    store = Store()
    store.observe(LLM_DEPLOYMENT, llm(version=1))
    store.observe(CONFIG_MAP, config_map(version=2))
    store.observe(LLM_DEPLOYMENT, llm(version=3), deleted=True)
    assert store.all_keys() == ()
    assert store.owners() == (KEY,)


def test_an_object_that_is_being_deleted_stays_a_child() -> None:
    store = Store()
    store.observe(CONFIG_MAP, config_map(deletionTimestamp="2026-01-01T00:00:00Z"))
    assert list(store.children(KEY)) == [MAP]


def test_an_object_without_labels_may_be_kept_under_the_key_of_its_owner() -> None:
    store = Store()
    store.observe(CONFIG_MAP, config_map(version=5))
    store.observe(CONFIG_MAP, config_map(version=6), deleted=True)
    assert store.observe(CONFIG_MAP, config_map(version=6, labels={}), key=KEY).keys == {KEY}
    assert list(store.children(KEY)) == [MAP]


def owned(kind: Kind, name: str, uid: str, by: dict[str, Any]) -> dict[str, Any]:
    metadata = config_map(name, uid=uid, ownerReferences=[by])["metadata"]
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": {}}


def controlled_by(kind: Kind, uid: str) -> dict[str, Any]:
    return {**owner(uid), "apiVersion": kind.api_version, "kind": kind.kind}


@pytest.mark.parametrize(
    ("owner_uid", "missing", "kept"),
    [
        pytest.param("uid-llama", None, True, id="a pod of this very LLMDeployment"),
        pytest.param("an earlier one", None, False, id="a pod of an earlier LLMDeployment of that name"),
        pytest.param("an earlier one", DEPLOYMENT, True, id="its Deployment is not known"),
        pytest.param("an earlier one", REPLICA_SET, True, id="its ReplicaSet is not known"),
        pytest.param("an earlier one", LLM_DEPLOYMENT, True, id="the LLMDeployment itself is gone"),
    ],
)
def test_pods_of_an_earlier_object_of_the_same_name_are_not_its_successors(
    owner_uid: str, missing: Kind | None, kept: bool
) -> None:
    store = Store()
    objects = {
        LLM_DEPLOYMENT: llm(),
        DEPLOYMENT: owned(DEPLOYMENT, "llama", "d", owner(owner_uid)),
        REPLICA_SET: owned(REPLICA_SET, "llama-1", "r", controlled_by(DEPLOYMENT, "d")),
        POD: pod("llama-1-a", own="llama", ownerReferences=[controlled_by(REPLICA_SET, "r")]),
    }
    for kind, item in objects.items():
        if kind != missing:
            store.observe(kind, item)
    assert bool(store.server_pods(KEY)) is kept
    assert bool(list(store.all_server_pods())) is kept


def test_pods_of_ours_outside_of_the_namespaces_that_are_served_are_foreign() -> None:
    store = Store(served=frozenset({"default"}))
    store.observe(POD, pod("llama-1", node="n1", gpus=2, own="llama", namespace="elsewhere"))
    store.observe(POD, pod("llama-1", node="n1", gpus=2, own="llama"))
    assert store.owners() == (KEY,)
    assert len(list(store.bound_usages())) == 2


def test_of_server_pods_that_have_ended_the_newest_is_kept_and_none_serves() -> None:
    store = Store()
    for number in range(5):
        failed = pod(f"llama-{number}", 10 + number, own="llama", phase="Failed")
        store.observe(POD, {**failed, "metadata": {**failed["metadata"], "uid": f"uid-{number}"}})
    assert store.server_pods(KEY) == ()
    assert [ref.name for ref in store.ended(KEY)] == ["llama-4"]
    ended = store.ended_server_pod(KEY)
    assert ended is not None
    assert ended["metadata"]["name"] == "llama-4"
