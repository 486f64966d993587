"""A deployment that names a MIG slice or a shared GPU gets it, from the plan to the pod, and nobody else does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from stowage.world import ModelResolved
from tests.engine.simulation import LLAMA_8B, Simulation, summary

INVENTORIES = Path(__file__).parents[2] / "e2e" / "inventories"
SMALL = {
    **LLAMA_8B,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "head_dim": 64,
    "tie_word_embeddings": True,
}


def cluster(file: str, **spec: Any) -> Simulation:
    documents = yaml.safe_load_all((INVENTORIES / file).read_text(encoding="utf-8"))
    nodes = [each for each in documents if each and each["kind"] == "Node"]
    wish = {"model": {"source": "hf://meta-llama/Llama-3.1-8B"}, "workload": {"maxModelLen": 2048}, **spec}
    return Simulation(wish, nodes=nodes, model=ModelResolved(summary(SMALL)))


@pytest.mark.parametrize(
    ("file", "name", "engine", "resource"),
    [
        pytest.param(
            "a100-mig-mixed.yaml",
            "NVIDIA-A100-SXM4-80GB-MIG-3g.40gb",
            {},
            "nvidia.com/mig-3g.40gb",
            id="a slice with a resource of its own",
        ),
        pytest.param(
            "a100-mig-single.yaml",
            "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb",
            {},
            "nvidia.com/gpu",
            id="a slice that is called a GPU",
        ),
        pytest.param(
            "t4-time-sliced.yaml",
            "Tesla-T4-SHARED",
            {"gpuMemoryUtilization": 0.25},
            "nvidia.com/gpu",
            id="a shared GPU",
        ),
    ],
)
def test_a_device_that_is_named_is_asked_for(
    file: str, name: str, engine: dict[str, Any], resource: str
) -> None:
    found = cluster(file, hardware={"gpus": [name]}, engine=engine)
    found.settle()
    assert found.condition("Planned")[0] == "True", found.condition("Planned")
    template = found.child("Deployment")["spec"]["template"]["spec"]
    assert template["containers"][0]["resources"]["limits"][resource] == "1"
    assert found.nodes[0]["metadata"]["labels"].items() >= template["nodeSelector"].items()
    (launch,) = found.child("ConfigMap")["data"].values()
    assert json.loads(launch)["gpus"]["product"] == name


def test_a_device_that_nobody_named_is_left_alone() -> None:
    found = cluster("a100-mig-mixed.yaml")
    found.settle()
    assert found.deployment() is None
    assert found.condition("Planned")[1] == "UnsupportedGPU"


def test_more_replicas_than_slices_are_not_made() -> None:
    named = ["NVIDIA-A100-SXM4-80GB-MIG-3g.40gb"]
    found = cluster("a100-mig-mixed.yaml", hardware={"gpus": named}, replicas=5)
    found.settle()
    assert found.child("Deployment")["spec"]["replicas"] == 2
