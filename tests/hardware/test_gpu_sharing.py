"""MIG slices and time-sliced GPUs: kept from everybody but those who name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stowage.api.conditions import Reason
from stowage.hardware.catalog import find_gpu
from stowage.hardware.gpu_identity import Sharing
from stowage.hardware.gpu_sharing import find_device
from stowage.hardware.inventory import Inventory, build_inventory
from stowage.hardware.node import node_facts
from stowage.hardware.on_request import with_requested
from stowage.hardware.resources import Resources
from stowage.hardware.room import PodNeeds, obstacle, pods_that_fit
from stowage.hardware.taints import GPU_TOLERATION
from tests.hardware.objects import gfd_labels, gpu_node, node

GPU = "nvidia.com/gpu"
INVENTORIES = Path(__file__).parents[2] / "e2e" / "inventories"


def shipped(name: str) -> Inventory:
    documents = yaml.safe_load_all((INVENTORIES / name).read_text(encoding="utf-8"))
    return build_inventory([node_facts(each) for each in documents if each and each["kind"] == "Node"], [])


def needs(resource: str, count: int, selector: dict[str, str]) -> PodNeeds:
    requests = Resources(1000, 2**30, 1, {resource: count})
    return PodNeeds(requests, selector, (GPU_TOLERATION,), resource)


@pytest.mark.parametrize(
    ("name", "gigabytes", "compute"),
    [
        pytest.param("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", 10, 1 / 7, id="the smallest slice"),
        pytest.param("NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", 40, 3 / 7, id="half of the memory"),
        pytest.param("NVIDIA-A100-SXM4-80GB-MIG-1g.20gb", 20, 1 / 7, id="little compute with more memory"),
        pytest.param("NVIDIA-A100-SXM4-80GB-MIG-7g.80gb", 80, 1, id="all slices"),
        pytest.param("NVIDIA-A100-SXM4-40GB-MIG-2g.10gb", 10, 2 / 7, id="a slice of the smaller card"),
        pytest.param("NVIDIA-H100-80GB-HBM3-MIG-4g.40gb", 40, 4 / 7, id="a slice of another GPU"),
    ],
)
def test_a_slice_is_its_share_of_the_whole_gpu(name: str, gigabytes: int, compute: float) -> None:
    whole, found = find_gpu(name.partition("-MIG-")[0]), find_device(name)
    assert whole is not None
    assert found is not None
    assert found.name == name
    assert found.nvml_memory_bytes == pytest.approx(gigabytes * 2**30, rel=0.03)
    assert found.fp16_flops == pytest.approx(whole.fp16_flops * compute, rel=1e-6)
    memory = found.nvml_memory_bytes / whole.nvml_memory_bytes
    assert found.memory_bytes_per_second == pytest.approx(whole.memory_bytes_per_second * memory, rel=1e-6)
    assert (found.link, found.link_bytes_per_second) == ("none", 1)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("NVIDIA-A100-SXM4-80GB-MIG-INVALID", id="an invalid configuration"),
        pytest.param("NVIDIA-Z9-MIG-1g.10gb", id="a slice of a GPU nobody knows"),
        pytest.param("NVIDIA-Z9-SHARED", id="a shared GPU nobody knows"),
        pytest.param("NVIDIA-A100-SXM4-80GB-MIG-9g.10gb", id="more slices than there are"),
    ],
)
def test_what_is_not_known_is_not_guessed(name: str) -> None:
    assert find_device(name) is None


@pytest.mark.parametrize(
    ("file", "name", "resource", "count", "sharing"),
    [
        pytest.param(
            "a100-mig-single.yaml",
            "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb",
            GPU,
            None,
            Sharing.SLICE,
            id="strategy single",
        ),
        pytest.param(
            "a100-mig-mixed.yaml",
            "NVIDIA-A100-SXM4-80GB-MIG-3g.40gb",
            "nvidia.com/mig-3g.40gb",
            2,
            Sharing.SLICE,
            id="strategy mixed",
        ),
        pytest.param("t4-time-sliced.yaml", "Tesla-T4-SHARED", GPU, None, Sharing.SHARED, id="time-slicing"),
    ],
)
def test_naming_a_device_opens_the_node(
    file: str, name: str, resource: str, count: int | None, sharing: Sharing
) -> None:
    closed = shipped(file)
    if not any(gpus.gpu.name == name for room in closed.nodes for gpus in room.facts.on_request):
        offered = [gpus.gpu.name for room in closed.nodes for gpus in room.facts.on_request]
        raise AssertionError(f"{file} offers {offered}")
    opened = with_requested(closed, [name])
    gpus = next(room.facts.gpus for room in opened.nodes if room.facts.gpus is not None)
    assert (gpus.gpu.name, gpus.resource_name, gpus.sharing) == (name, resource, sharing)
    assert count is None or gpus.count == count
    assert with_requested(closed, ["NVIDIA-L4", "NVIDIA-A100-SXM4-80GB"]).nodes == closed.nodes
    room = opened.nodes[0]
    assert pods_that_fit(room, needs(resource, 1, dict(gpus.node_selector))) > 0
    hurdle = obstacle(room, needs(resource, 2, dict(gpus.node_selector)))
    assert hurdle is not None
    assert hurdle.reason is Reason.UNSUPPORTED_GPU


def test_a_node_with_two_kinds_of_slices_appears_once_for_each_that_is_named() -> None:
    closed = shipped("a100-mig-mixed.yaml")
    names = [gpus.gpu.name for room in closed.nodes for gpus in room.facts.on_request]
    assert len(names) == 2
    assert [
        room.facts.gpus.gpu.name for room in with_requested(closed, names).nodes if room.facts.gpus
    ] == names


def test_a_plan_that_is_in_force_finds_its_slices_in_the_plain_inventory() -> None:
    (room,) = shipped("a100-mig-mixed.yaml").nodes
    gpus = room.facts.on_request[0]
    assert pods_that_fit(room, needs(gpus.resource_name, 1, dict(gpus.node_selector))) > 0
    assert pods_that_fit(room, needs(gpus.resource_name, 1, {})) == 0
    assert pods_that_fit(room, needs(GPU, 1, {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"})) == 0


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            node(
                "a",
                labels=gfd_labels("Tesla-T4", 1, **{"gpu.replicas": "4", "gpu.sharing-strategy": "mps"}),
                extended={GPU: 4},
            ),
            id="MPS",
        ),
        pytest.param(
            gpu_node(
                "a",
                "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb",
                7,
                labels={"nvidia.com/mig.config.state": "pending"},
            ),
            id="a node that is being repartitioned",
        ),
        pytest.param(gpu_node("a", "NVIDIA-Z9-MIG-1g.5gb", 7), id="slices of an unknown GPU"),
    ],
)
def test_some_devices_are_not_to_be_had_at_all(raw: dict[str, Any]) -> None:
    facts = node_facts(raw)
    assert facts.refusal is not None
    assert facts.on_request == ()


def test_the_refusal_says_how_to_ask() -> None:
    facts = node_facts(gpu_node("a", "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", 7))
    assert facts.refusal is not None
    assert "name NVIDIA-A100-SXM4-40GB-MIG-1g.5gb in spec.hardware.gpus" in facts.refusal.hint


def test_memory_of_a_slice_is_what_its_label_says() -> None:
    raw = gpu_node("a", "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", 7, labels={"nvidia.com/gpu.memory": "9728"})
    gpus = node_facts(raw).on_request[0]
    assert gpus.total_memory_bytes == pytest.approx(9728 * 2**20, rel=0.02)


def test_shared_gpus_say_how_many_share_one() -> None:
    labels = {"nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.sharing-strategy": "time-slicing"}
    gpus = node_facts(gpu_node("a", "Tesla-T4-SHARED", 1, extended={GPU: 4}, labels=labels)).on_request[0]
    assert (gpus.count, gpus.pods_per_gpu) == (4, 4)
