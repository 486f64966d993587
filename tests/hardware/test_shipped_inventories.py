"""The simulated nodes that ship with the repository are read as what they claim to be."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from stowage.hardware.node import NodeFacts, node_facts

INVENTORIES = Path(__file__).parents[2] / "e2e" / "inventories"


def nodes_of(name: str) -> list[NodeFacts]:
    documents = yaml.safe_load_all((INVENTORIES / name).read_text(encoding="utf-8"))
    return [node_facts(each) for each in documents if each and each["kind"] == "Node"]


@pytest.mark.parametrize(
    ("file", "product", "count"),
    [
        pytest.param("1x-a10g.yaml", "NVIDIA-A10G", 1, id="A10G"),
        pytest.param("4x-l4.yaml", "NVIDIA-L4", 4, id="L4"),
        pytest.param("8x-l40s.yaml", "NVIDIA-L40S", 8, id="L40S"),
        pytest.param("8x-a100-80gb.yaml", "NVIDIA-A100-SXM4-80GB", 8, id="A100"),
        pytest.param("8x-h100.yaml", "NVIDIA-H100-80GB-HBM3", 8, id="H100"),
        pytest.param("8x-h200.yaml", "NVIDIA-H200", 8, id="H200"),
        pytest.param("8x-b200.yaml", "NVIDIA-B200", 8, id="B200"),
        pytest.param("8x-mi300x.yaml", "AMD_Instinct_MI300X_OAM", 8, id="MI300X"),
    ],
)
def test_gpus_are_what_the_file_is_named_after(file: str, product: str, count: int) -> None:
    for facts in nodes_of(file):
        assert facts.gpus is not None, facts.refusal
        assert (facts.gpus.gpu.name, facts.gpus.count) == (product, count)
        assert facts.ready


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        pytest.param("a100-mig-single.yaml", "UnsupportedGPU", id="MIG in single strategy"),
        pytest.param("a100-mig-mixed.yaml", "UnsupportedGPU", id="MIG in mixed strategy"),
        pytest.param("t4-time-sliced.yaml", "UnsupportedGPU", id="time-slicing"),
        pytest.param("gpus-without-labels.yaml", "UnknownGPU", id="no labels"),
    ],
)
def test_gpus_that_cannot_be_planned_with_are_refused(file: str, reason: str) -> None:
    for facts in nodes_of(file):
        assert facts.refusal is not None
        assert facts.refusal.reason == reason
