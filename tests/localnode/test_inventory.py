from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from e2e.localnode.inventory import InventoryError, NodeManifest, is_gpu_resource, load_inventory

INVENTORIES = sorted((Path(__file__).resolve().parents[2] / "e2e" / "inventories").glob("*.yaml"))
NVIDIA = [file for file in INVENTORIES if file.stem not in ("cpu-local", "8x-mi300x", "gpus-without-labels")]


def labelled(file: Path) -> list[NodeManifest]:
    return [node for node in load_inventory([file]) if "nvidia.com/gpu.product" in node.labels]


@pytest.mark.parametrize("file", INVENTORIES, ids=lambda file: file.stem)
def test_every_inventory_can_be_played(file: Path) -> None:
    nodes = load_inventory([file])
    assert nodes
    for node in nodes:
        assert {"cpu", "memory", "ephemeral-storage", "pods"} <= set(node.allocatable)
        assert node.labels["kubernetes.io/hostname"] == node.name


@pytest.mark.parametrize("file", NVIDIA, ids=lambda file: file.stem)
def test_labels_are_those_of_gpu_feature_discovery(file: Path) -> None:
    wanted = [
        "present",
        "product",
        "count",
        "memory",
        "family",
        "compute.major",
        "compute.minor",
        "replicas",
        "sharing-strategy",
    ]
    for node in labelled(file):
        assert not [name for name in wanted if f"nvidia.com/gpu.{name}" not in node.labels]
        assert {"nvidia.com/mig.strategy", "nvidia.com/mig.capable"} <= set(node.labels)
        assert node.labels["nvidia.com/cuda.driver-version.full"].startswith(
            node.labels["nvidia.com/cuda.driver-version.major"] + "."
        )
        assert {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"} in node.taints


@pytest.mark.parametrize("file", NVIDIA, ids=lambda file: file.stem)
def test_the_node_offers_as_many_gpus_as_its_labels_say(file: Path) -> None:
    for node in labelled(file):
        if node.labels["nvidia.com/mig.strategy"] == "mixed":
            slices = {k: v for k, v in node.allocatable.items() if k.startswith("nvidia.com/mig-")}
            assert slices == {key: node.labels[f"{key}.count"] for key in slices}
            continue
        count, replicas = (int(node.labels[f"nvidia.com/gpu.{name}"]) for name in ("count", "replicas"))
        assert int(node.allocatable["nvidia.com/gpu"]) == count * replicas


def test_all_inventories_together_have_unique_nodes() -> None:
    files = [file for file in INVENTORIES if file.stem != "demo"]
    assert len(load_inventory(files)) == len(files)


def test_auto_is_what_the_machine_has() -> None:
    node = load_inventory([file for file in INVENTORIES if file.stem == "cpu-local"])[0]
    assert int(node.capacity["cpu"]) >= 1
    assert int(node.capacity["memory"].removesuffix("Ki")) > 1 << 20
    assert not node.has_gpus


@pytest.mark.parametrize(
    ("resource", "gpus"),
    [
        ("nvidia.com/gpu", True),
        ("nvidia.com/gpu.shared", True),
        ("nvidia.com/mig-3g.40gb", True),
        ("amd.com/gpu", True),
        ("gpu.intel.com/xe", True),
        ("nvidia.com/gpumem", False),
        ("cpu", False),
    ],
)
def test_gpu_resources(resource: str, gpus: bool) -> None:
    assert is_gpu_resource(resource) is gpus


NODE = {"kind": "Node", "metadata": {"name": "a"}, "status": {"capacity": {"cpu": "1"}}}


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        pytest.param({"kind": "Pod"}, "expected kind Node or List", id="another kind"),
        pytest.param(
            {"kind": "List", "items": [{"kind": "Node"}]}, "no Node with a metadata.name", id="no name"
        ),
        pytest.param(
            {"kind": "Node", "metadata": {"name": "a"}}, "node a has no status.capacity", id="no capacity"
        ),
        pytest.param({"kind": "List", "items": [NODE, NODE]}, "node name a occurs twice", id="a name twice"),
        pytest.param(
            {**NODE, "status": {"capacity": {"cpu": 4}}}, "cpu: 4 must be written as a string", id="a number"
        ),
        pytest.param(
            {**NODE, "status": {"capacity": {"nvidia.com/gpu": "auto"}}},
            "auto is possible for",
            id="auto GPUs",
        ),
    ],
)
def test_bad_inventories_are_refused_with_a_sentence(tmp_path: Path, document: object, sentence: str) -> None:
    file = tmp_path / "nodes.yaml"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(InventoryError, match=sentence):
        load_inventory([file])


def test_what_kubectl_prints_can_be_read_back(tmp_path: Path) -> None:
    node = {
        **NODE,
        "metadata": {
            "name": "a",
            "uid": "1",
            "resourceVersion": "2",
            "annotations": {"volumes.kubernetes.io/x": "true", "mine": "1"},
        },
        "spec": {"unschedulable": True, "taints": [{"key": "k", "effect": "NoSchedule"}]},
    }
    file = tmp_path / "nodes.yaml"
    file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [node]}))
    (read,) = load_inventory([file])
    assert read.annotations == {"mine": "1"}
    assert read.unschedulable
    assert read.taints[0]["key"] == "k"
