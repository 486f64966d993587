"""What is free: the scheduler's way of counting pods, quotas and promised places."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.hardware.inventory import build_inventory, pod_usage, quota_room, release, reserve
from stowage.hardware.node import node_facts
from stowage.hardware.resources import Resources
from stowage.hardware.room import PodNeeds, obstacle
from stowage.hardware.taints import GPU_TOLERATION, Taint, Toleration, untolerated
from tests.hardware.objects import gpu_node, node, pod, quota

GPU = "nvidia.com/gpu"


def container(cpu: str, **more: Any) -> dict[str, Any]:
    return {"name": "c", "resources": {"requests": {"cpu": cpu}}, **more}


@pytest.mark.parametrize(
    ("spec", "millicores"),
    [
        pytest.param({"containers": [container("1"), container("500m")]}, 1500, id="containers add up"),
        pytest.param(
            {"containers": [container("1")], "initContainers": [container("3"), container("2")]},
            3000,
            id="the largest init container counts, not their sum",
        ),
        pytest.param(
            {"containers": [container("1")], "initContainers": [container("2", restartPolicy="Always")]},
            3000,
            id="a sidecar runs beside the containers",
        ),
        pytest.param(
            {
                "containers": [container("1")],
                "initContainers": [container("1", restartPolicy="Always"), container("5")],
            },
            6000,
            id="an init container runs beside the sidecars started before it",
        ),
        pytest.param(
            {"containers": [container("1")], "overhead": {"cpu": "250m"}},
            1250,
            id="overhead of the runtime class",
        ),
        pytest.param(
            {"containers": [container("1"), container("1")], "resources": {"requests": {"cpu": "5"}}},
            5000,
            id="requests of the whole pod replace those of its containers",
        ),
        pytest.param(
            {"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]},
            2000,
            id="a limit is a request",
        ),
    ],
)
def test_pods_are_counted_as_the_scheduler_counts_them(spec: dict[str, Any], millicores: int) -> None:
    usage = pod_usage(pod("p", spec=spec))
    assert usage.requests == Resources(cpu_millicores=millicores, pods=1)


def test_a_finished_pod_holds_nothing() -> None:
    usage = pod_usage(pod("p", {"cpu": "4", GPU: "1"}, on="n", phase="Succeeded"))
    assert usage.requests == Resources()


def test_foreign_pods_count_and_are_named_as_holders() -> None:
    nodes = [node_facts(gpu_node("n", "NVIDIA-L4", 4))]
    pods = [
        pod_usage(pod("a", {GPU: "2", "memory": "1Gi"}, on="n", namespace="ml")),
        pod_usage(pod("b", {GPU: "1"}, on="n", owner="llama")),
        pod_usage(pod("c", {GPU: "1"}, on="elsewhere")),
    ]
    room = build_inventory(nodes, pods).nodes[0]
    assert room.free_gpus == 1
    assert room.free.memory_bytes == 255 * 2**30
    assert room.free.pods == 108
    assert room.holders == {"default/llama": 1, "namespace ml": 2}


def test_unbound_pods_of_deployments_keep_their_place_and_foreign_ones_do_not() -> None:
    nodes = [node_facts(gpu_node("n", "NVIDIA-L4", 4))]
    selector = {"tolerations": [{"key": GPU, "operator": "Exists"}]}
    mine = pod_usage(pod("a", {GPU: "4"}, owner="first", spec=selector | pod("x", {GPU: "4"})["spec"]))
    foreign = pod_usage(pod("b", {GPU: "4"}, namespace="ml"))
    assert build_inventory(nodes, [foreign]).nodes[0].free_gpus == 4
    room = build_inventory(nodes, [mine, foreign]).nodes[0]
    assert room.free_gpus == 0
    needs = PodNeeds(Resources(pods=1, extended={GPU: 1}), {}, (GPU_TOLERATION,), GPU)
    hurdle = obstacle(room, needs)
    assert hurdle is not None
    assert hurdle.reason == "GPUsGrantedElsewhere"
    assert "default/first" in hurdle.words


def test_a_place_is_kept_only_where_the_pod_could_go() -> None:
    nodes = [node_facts(gpu_node("a", "NVIDIA-L4", 4)), node_facts(gpu_node("b", "NVIDIA-L40S", 4))]
    waiting = pod(
        "w",
        {GPU: "1"},
        owner="x",
        spec={
            "containers": [{"name": "c", "resources": {"requests": {GPU: "1"}}}],
            "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L40S"},
            "tolerations": [{"key": GPU, "operator": "Exists"}],
        },
    )
    rooms = reserve(build_inventory(nodes, []), [pod_usage(waiting)]).nodes
    assert [room.free_gpus for room in rooms] == [4, 3]


def test_release_gives_back_room_and_quota() -> None:
    nodes = [node_facts(gpu_node("n", "NVIDIA-L4", 4))]
    bound = pod_usage(pod("a", {GPU: "3"}, on="n", owner="x"))
    pending = pod_usage(pod("b", {GPU: "3"}, owner="x"))
    limits = [quota_room(quota("q", {f"requests.{GPU}": "6"}, {f"requests.{GPU}": "6"}))]
    inventory = build_inventory(nodes, [bound], limits)
    assert inventory.nodes[0].free_gpus == 1
    freed = release(inventory, [bound, pending])
    assert freed.nodes[0].free_gpus == 4
    assert freed.nodes[0].holders == {}
    assert freed.quotas[0].room == {f"requests.{GPU}": 6}


@pytest.mark.parametrize(
    ("hard", "used", "pods", "key"),
    [
        pytest.param({f"requests.{GPU}": "4"}, {f"requests.{GPU}": "2"}, 1, None, id="devices"),
        pytest.param({"requests.memory": "20Gi"}, {}, 2, None, id="memory"),
        pytest.param({"cpu": "3"}, {"cpu": "2500m"}, 0, "cpu", id="CPU in fractions"),
        pytest.param({"pods": "5", "count/pods": "9"}, {"pods": "5"}, 0, "pods", id="pods"),
        pytest.param({"services": "0"}, {}, None, None, id="a quota on other things does not limit pods"),
        pytest.param({f"requests.{GPU}": "0"}, {}, 0, f"requests.{GPU}", id="a quota of none"),
    ],
)
def test_quotas_limit_replicas(
    hard: dict[str, str], used: dict[str, str], pods: int | None, key: str | None
) -> None:
    room = quota_room(quota("q", hard, used))
    asked = Resources(cpu_millicores=1000, memory_bytes=10 * 2**30, pods=1, extended={GPU: 2})
    assert room.pods_that_fit(asked) == pods
    assert room.lacking(asked) == key


def test_a_quota_for_other_pods_is_left_out() -> None:
    scoped = quota("q", {"pods": "0"}, scopeSelector={"matchExpressions": [{"scopeName": "PriorityClass"}]})
    assert quota_room(scoped).room == {}


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        pytest.param(Toleration("dedicated", "Equal", "ml", "NoSchedule"), True, id="equal in everything"),
        pytest.param(Toleration("dedicated", "Exists"), True, id="the key exists, any effect"),
        pytest.param(Toleration("", "Exists"), True, id="everything is tolerated"),
        pytest.param(Toleration("dedicated", "Equal", "web"), False, id="another value"),
        pytest.param(Toleration("dedicated", "Exists", "", "NoExecute"), False, id="another effect"),
        pytest.param(GPU_TOLERATION, False, id="the GPU toleration is for the GPU taint"),
    ],
)
def test_tolerations_match_as_in_the_scheduler(toleration: Toleration, tolerated: bool) -> None:
    taint = Taint("dedicated", "ml", "NoSchedule")
    assert (untolerated([taint], [toleration]) is None) is tolerated


def test_a_preference_keeps_nobody_away() -> None:
    assert untolerated([Taint("k", "", "PreferNoSchedule")], []) is None


def test_the_inventory_is_in_order_of_name() -> None:
    facts = [node_facts(node(name)) for name in ("c", "a", "b")]
    assert [room.facts.name for room in build_inventory(facts, []).nodes] == ["a", "b", "c"]
