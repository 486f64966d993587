"""What pools, taints and shared devices do to a whole plan."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.api.conditions import Reason
from stowage.hardware.inventory import Inventory, build_inventory, pod_usage
from stowage.hardware.node import node_facts
from stowage.hardware.pool_file import read_pools
from stowage.hardware.pools import pool_of
from stowage.hardware.room import pods_that_fit
from stowage.model.profile import ModelProfile
from stowage.planning.groups import gpu_groups
from stowage.planning.placement import needs_of, place_replicas
from stowage.planning.result import Plan
from tests.hardware.objects import gpu_node, pod
from tests.planning.builders import chosen, llama_8b, llama_70b, make_plan, refused, spec_of

GPU = "nvidia.com/gpu"
H100 = "NVIDIA-H100-80GB-HBM3"
LABELS = {"example.com/pool": "big"}
POOL: dict[str, Any] = {
    "name": "big",
    "gpu": H100,
    "gpusPerNode": 8,
    "maxNodes": 2,
    "labels": LABELS,
    "cpu": "64",
    "memory": "512Gi",
}


def inventory(
    nodes: list[dict[str, Any]], pods: list[dict[str, Any]] | None = None, **pool: Any
) -> Inventory:
    return build_inventory(
        map(node_facts, nodes), map(pod_usage, pods or []), pools=read_pools([{**POOL, **pool}])
    )


def l4(name: str = "l4") -> dict[str, Any]:
    return gpu_node(name, "NVIDIA-L4", 4)


def test_a_model_that_fits_nowhere_now_is_planned_on_the_pool() -> None:
    plan = chosen(make_plan(llama_70b(), inventory([l4()])))
    assert (plan.placement.kind, plan.placement.pools) == ("AfterScaleUp", ("big",))
    assert "counts on pool big to grow by 1 node" in plan.placement.evidence
    assert plan.node_selector == LABELS
    assert plan.gpu_product == H100


def test_gpus_that_exist_are_taken_before_a_pool_grows() -> None:
    plan = chosen(make_plan(llama_8b(), inventory([gpu_node("b200", "NVIDIA-B200", 8)], gpu="NVIDIA-L4")))
    assert plan.gpu_product == "NVIDIA-B200"
    assert plan.placement.kind == "Now"


def test_a_wish_for_the_pools_gpu_waits_for_the_pool() -> None:
    plan = chosen(make_plan(llama_8b(), inventory([l4()]), hardware={"gpus": [H100]}))
    assert plan.placement.kind == "AfterScaleUp"


def test_what_neither_nodes_nor_pools_have_is_impossible() -> None:
    refusal = refused(make_plan(llama_70b(), inventory([l4()], maxNodes=0)))
    assert refusal.reason is Reason.INSUFFICIENT_MEMORY


def test_nodes_to_come_count_only_for_the_plan_that_names_their_pool() -> None:
    room = inventory([gpu_node("a", H100, 8, labels=LABELS)])
    plan = chosen(make_plan(llama_70b(), room, replicas=9))
    per_node = 8 // plan.gpus_per_replica
    assert len(place_replicas(plan, room, 99)) == 2 * per_node
    assert len(place_replicas(plan, room, 99, after_scale_up=False)) == per_node
    stranger = Plan.from_json(plan.to_json().replace('"pools":["big"]', '"pools":[]'))
    assert len(place_replicas(stranger, room, 99)) == per_node


def test_a_node_of_a_pool_is_found_by_the_pools_labels_and_by_its_product() -> None:
    nodes = [gpu_node("in", H100, 8, labels=LABELS), gpu_node("out", H100, 8)]
    groups = gpu_groups(inventory(nodes), spec_of())
    names = {tuple(group.node_selector): [node.facts.name for node in group.nodes] for group in groups}
    assert names == {
        ("example.com/pool",): ["big/new-1", "in"],
        ("nvidia.com/gpu.product",): ["in", "out"],
    }


def test_a_pool_whose_product_label_is_declared_is_one_group_with_its_nodes() -> None:
    labels = {**LABELS, "nvidia.com/gpu.product": H100}
    (group,) = gpu_groups(inventory([gpu_node("out", H100, 8)], labels=labels), spec_of())
    assert [node.facts.name for node in group.nodes] == ["out", "big/new-1", "big/new-2"]


def test_a_selector_that_the_pool_does_not_declare_leaves_it_out() -> None:
    selector = {"hardware": {"nodeSelector": {"team": "a"}}}
    assert gpu_groups(inventory([]), spec_of(**selector)) == ()


@pytest.mark.parametrize(
    ("taints", "tolerations", "taken"),
    [
        pytest.param([], [], True, id="no taint"),
        pytest.param([{"key": GPU, "effect": "NoSchedule"}], [], True, id="the usual taint"),
        pytest.param(
            [{"key": "team", "value": "a", "effect": "NoSchedule"}], [], False, id="somebody else's"
        ),
        pytest.param(
            [{"key": "team", "value": "a", "effect": "NoSchedule"}],
            [{"key": "team", "operator": "Equal", "value": "a"}],
            True,
            id="one that the spec tolerates",
        ),
    ],
)
def test_taints_of_a_pool_count(
    taints: list[dict[str, str]], tolerations: list[dict[str, str]], taken: bool
) -> None:
    result = make_plan(llama_8b(), inventory([], taints=taints), hardware={"tolerations": tolerations})
    assert (result.plan is not None) is taken
    if not taken:
        assert "team=a:NoSchedule" in refused(result).message
        assert "a new node of pool big" in refused(result).message


def test_a_small_model_leaves_whole_eight_gpu_nodes_whole() -> None:
    nodes = [
        gpu_node("whole", "NVIDIA-L4", 8),
        gpu_node("used", "NVIDIA-L4", 8),
        gpu_node("small", "NVIDIA-L4", 2),
    ]
    pods = [pod("p", {GPU: "6"}, on="used")]
    plan = chosen(make_plan(llama_8b(), inventory(nodes, pods, maxNodes=0), replicas=5))
    assert sorted(plan.placement.node_names) == ["small", "small", "used", "used", "whole"]


@pytest.mark.parametrize(
    ("share", "words"),
    [
        pytest.param(
            None, "spec.engine.gpuMemoryUtilization is not set; set it to at most 0.25", id="no share"
        ),
        pytest.param(
            0.5, "spec.engine.gpuMemoryUtilization is 0.5; set it to at most 0.25", id="too large a share"
        ),
    ],
)
def test_a_shared_gpu_needs_a_share_of_its_memory(share: float | None, words: str) -> None:
    labels = {"nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.sharing-strategy": "time-slicing"}
    shared = gpu_node("a", "NVIDIA-L40S-SHARED", 1, extended={GPU: 4}, labels=labels)
    engine = {} if share is None else {"gpuMemoryUtilization": share}
    hardware = {"gpus": ["NVIDIA-L40S-SHARED"]}
    refusal = refused(
        make_plan(llama_8b(), inventory([shared], maxNodes=0), hardware=hardware, engine=engine)
    )
    assert refusal.reason is Reason.PIN_CONFLICT
    assert words in refusal.message


@st.composite
def growing_clusters(draw: st.DrawFn) -> Inventory:
    declared = {
        "gpu": draw(st.sampled_from([H100, "NVIDIA-L40S"])),
        "gpusPerNode": draw(st.sampled_from([1, 4, 8])),
    }
    nodes, pods = [], []
    for index in range(draw(st.integers(0, 4))):
        gpu = draw(st.sampled_from([H100, "NVIDIA-L4", "NVIDIA-L40S"]))
        total = draw(st.sampled_from([2, 4, 8]))
        # No node of another GPU carries a pool's labels: that is what they are for.
        more = {"labels": LABELS} if gpu == declared["gpu"] and draw(st.booleans()) else {}
        nodes.append(gpu_node(f"n{index}", gpu, total, **more))
        if used := draw(st.integers(0, total)):
            pods.append(pod(f"p{index}", {GPU: str(used)}, on=f"n{index}"))
    return inventory(nodes, pods, maxNodes=draw(st.integers(0, 3)), **declared)


@settings(max_examples=40, deadline=None)
@given(growing_clusters(), st.sampled_from([llama_8b(), llama_70b()]), st.integers(1, 6))
def test_a_plan_never_counts_on_room_that_is_not_there(
    room: Inventory, profile: ModelProfile, replicas: int
) -> None:
    result = make_plan(profile, room, replicas)
    if result.plan is None:
        return
    plan, asked = result.plan, needs_of(result.plan)
    free = {node.facts.name: pods_that_fit(node, asked) for node in room.nodes}
    for name, taken in Counter(plan.placement.node_names).items():
        assert taken <= free[name]
    waits = [name for name in plan.placement.node_names if pool_of(name) is not None]
    assert plan.placement.kind == ("AfterScaleUp" if waits else "Now")
    assert plan.placement.new_nodes == len(set(waits))
    assert place_replicas(plan, room, replicas) == plan.placement.node_names
    if waits:
        now = place_replicas(plan, room, replicas, after_scale_up=False)
        assert plan.placement.node_names[: len(now)] == now
