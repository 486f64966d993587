"""Plans that count on a node pool to grow: objects are made, waiting is progress, and no rollout makes a pool grow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from stowage.engine.record import read_in_force
from stowage.hardware.inventory import build_inventory, pod_usage
from stowage.hardware.node import node_facts
from stowage.hardware.pool_file import read_pools
from stowage.world import World
from tests.engine.simulation import Simulation, gpu_node, gpu_pod

LABELS = {"example.com/pool": "l4"}


@dataclass
class WithPool(Simulation):
    """The same cluster with a pool of four-GPU nodes that may have `max_nodes`."""

    max_nodes: int = 1

    @property
    def world(self) -> World:
        pool = {
            "name": "l4",
            "gpu": "NVIDIA-L4",
            "gpusPerNode": 4,
            "maxNodes": self.max_nodes,
            "labels": LABELS,
            "taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}],
            "cpu": "64",
            "memory": "512Gi",
        }
        usages = [pod_usage(each) for each in (*self.pods, *self.foreign_pods)]
        bound = [usage for usage in usages if usage.node_name is not None]
        nodes = [node_facts(each) for each in self.nodes]
        inventory = build_inventory(nodes, bound, pools=read_pools([pool]))
        return replace(super().world, inventory=inventory)

    def pend(self) -> None:
        """The Deployment controller makes the pods, and the scheduler finds no node."""
        deployment = self.deployment()
        assert deployment is not None
        while len(self.pods) < deployment["spec"]["replicas"]:
            self.add_unbound_pod()
            message = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
            unscheduled = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": message,
            }
            self.pods[-1]["status"] = {"phase": "Pending", "conditions": [unscheduled]}


def new_node(name: str) -> dict[str, Any]:
    node = gpu_node(name)
    node["metadata"]["labels"] |= LABELS
    return node


def test_a_plan_that_fits_after_a_scale_up_is_launched_and_says_so() -> None:
    cluster = WithPool(nodes=[])
    cluster.settle()
    deployment = cluster.deployment()
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["template"]["spec"]["nodeSelector"] == LABELS
    status, _, message = cluster.condition("Planned")
    assert status == "True"
    assert message.endswith("; counts on pool l4 to grow by 1 node.")
    shown = cluster.resource["status"]["plan"]
    assert shown["placement"] == "AfterScaleUp"
    assert "l4" in cluster.condition("AbleToScale")[2]


def test_replicas_beyond_what_the_pool_can_grow_to_are_not_made() -> None:
    cluster = WithPool({"model": {"source": "hf://meta-llama/Llama-3.1-8B"}, "replicas": 9}, nodes=[])
    cluster.settle()
    deployment = cluster.deployment()
    assert deployment is not None
    per_replica = cluster.resource["status"]["plan"]["gpusPerReplica"]
    assert deployment["spec"]["replicas"] == 4 // per_replica
    assert cluster.condition("AbleToScale")[1] == "InsufficientGPUs"


def test_waiting_for_the_pool_is_progress_and_keeps_the_plan() -> None:
    cluster = WithPool(nodes=[])
    cluster.settle()
    cluster.pend()
    before = cluster.child("Deployment")["spec"]
    cluster.settle()
    status, reason, message = cluster.condition("Progressing")
    assert (status, reason) == ("True", "Scheduling")
    assert "The plan counts on the pool l4 to grow by a node." in message
    assert cluster.condition("Degraded")[0] == "False"
    assert cluster.child("Deployment")["spec"] == before


def test_a_node_that_is_still_starting_does_not_cost_the_plan() -> None:
    cluster = WithPool(nodes=[])
    cluster.settle()
    cluster.pend()
    cluster.settle()
    before = cluster.child("Deployment")["spec"]
    starting = new_node("gpu-new")
    starting["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    for amounts in ("allocatable", "capacity"):
        starting["status"][amounts] = {"cpu": "64", "memory": "512Gi", "pods": "110"}
    cluster.nodes = [starting]
    cluster.settle()
    assert cluster.child("Deployment")["spec"] == before
    assert cluster.condition("Planned")[0] == "True"
    cluster.nodes = [new_node("gpu-new")]
    cluster.pods = []
    cluster.settle()
    cluster.run_pods()
    cluster.settle()
    assert cluster.child("Deployment")["spec"] == before
    assert cluster.condition("Ready")[0] == "True"


def test_a_pool_that_can_no_longer_grow_is_a_plan_that_no_longer_fits() -> None:
    cluster = WithPool(nodes=[])
    cluster.settle()
    cluster.max_nodes = 0
    cluster.settle()
    assert cluster.condition("Planned")[1] == "PlanNoLongerFits"


def test_a_place_that_exists_is_taken_before_a_pool_grows() -> None:
    cluster = WithPool()
    cluster.settle()
    assert cluster.resource["status"]["plan"]["placement"] == "Now"


def test_a_rollout_does_not_make_a_pool_grow() -> None:
    cluster = WithPool(
        {"model": {"source": "hf://meta-llama/Llama-3.1-8B"}}, nodes=[new_node("gpu-1")], max_nodes=3
    )
    cluster.serve()
    record = read_in_force(cluster.deployment())
    assert record is not None
    assert record.plan.placement.pools == ("l4",)
    per_replica = record.plan.gpus_per_replica
    cluster.foreign_pods = [gpu_pod("other", "gpu-1", 4 - per_replica)]
    cluster.edit(runtime={"env": [{"name": "A", "value": "b"}]})
    cluster.settle()
    strategy = cluster.child("Deployment")["spec"]["strategy"]
    assert strategy["rollingUpdate"]["maxSurge"] == 0
