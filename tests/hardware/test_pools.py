"""How many nodes a pool can still grow by, and what is believed of nodes that it has."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.hardware.inventory import build_inventory, pod_usage, release
from stowage.hardware.node import node_facts
from stowage.hardware.pool_file import read_pools
from stowage.hardware.pools import name_to_come, pool_of
from tests.hardware.objects import gpu_node, node, pod
from tests.hardware.test_pool_file import POOL

GPU = "nvidia.com/gpu"
LABELS = POOL["labels"]
TOLERATIONS = [{"key": GPU, "operator": "Exists"}]


def member(name: str, **more: Any) -> dict[str, Any]:
    return gpu_node(name, "NVIDIA-H100-80GB-HBM3", 8, labels=LABELS, **more)


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        pytest.param([], 3, id="a pool without nodes"),
        pytest.param([member("a")], 2, id="one node is there"),
        pytest.param([member("a", ready=False)], 2, id="a node that is not ready is there all the same"),
        pytest.param([member(name) for name in "abc"], 0, id="a full pool"),
        pytest.param([member(name) for name in "abcde"], 0, id="more nodes than are declared"),
        pytest.param([gpu_node("a", "NVIDIA-H100-80GB-HBM3", 8)], 3, id="a node of the same kind in no pool"),
        pytest.param(
            [node("a", labels=LABELS)], 3, id="a node whose device plugin has not spoken yet is to come"
        ),
        pytest.param([member("a", extended={})], 3, id="a labelled node that offers no GPUs yet is to come"),
    ],
)
def test_a_pool_can_grow_by_what_is_not_there(nodes: list[dict[str, Any]], left: int) -> None:
    inventory = build_inventory(map(node_facts, nodes), [], pools=read_pools([POOL]))
    to_come = [room for room in inventory.nodes if room.facts.pool]
    assert [room.facts.name for room in to_come] == [
        name_to_come("h100", number) for number in range(1, left + 1)
    ]
    assert inventory.nodes[len(inventory.nodes) - left :] == tuple(to_come)
    assert all(room.free_gpus == 8 for room in to_come)


def test_names_tell_nodes_to_come_from_nodes() -> None:
    assert pool_of(name_to_come("gpu.pool-1", 12)) == "gpu.pool-1"
    assert pool_of("gpu-pool-1-new-7") is None


def test_the_declaration_says_which_gpus_an_unlabelled_node_of_the_pool_has() -> None:
    nodes = [node("a", labels=LABELS, extended={GPU: 7}), node("b", extended={GPU: 8})]
    a, b, *_ = build_inventory(map(node_facts, nodes), [], pools=read_pools([POOL])).nodes
    assert a.facts.gpus is not None
    assert (a.facts.gpus.gpu.name, a.facts.gpus.count) == ("NVIDIA-H100-80GB-HBM3", 7)
    assert a.facts.gpus.evidence == "the declaration of pool h100"
    assert b.facts.gpus is None


def test_a_product_label_is_believed_before_the_pool() -> None:
    strange = gpu_node("a", "NVIDIA-H900", 8, labels=LABELS)
    facts = build_inventory([node_facts(strange)], [], pools=read_pools([POOL])).nodes[0].facts
    assert facts.gpus is None
    assert facts.refusal is not None


def test_a_pod_that_waits_for_a_scale_up_keeps_its_part_of_it() -> None:
    spec = {
        "containers": [{"name": "c", "resources": {"requests": {GPU: "8"}}}],
        "nodeSelector": LABELS,
        "tolerations": TOLERATIONS,
    }
    waiting = [pod_usage(pod(f"w{number}", owner=f"x{number}", spec=spec)) for number in range(2)]
    inventory = build_inventory([node_facts(member("a"))], waiting, pools=read_pools([POOL]))
    assert {room.facts.name: room.free_gpus for room in inventory.nodes} == {
        "a": 0,
        "h100/new-1": 0,
        "h100/new-2": 8,
    }
    assert inventory.nodes[1].promised == {"default/x1": 8}
    assert release(inventory, [pod_usage(pod("p", {GPU: "8"}, on="a"))]).nodes[1].free_gpus == 0
