"""Which GPUs a node has: the order of evidence, and every case that must not be guessed."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.conditions import Reason
from stowage.hardware.catalog import find_gpu
from stowage.hardware.node import node_facts
from tests.hardware.objects import gfd_labels, gpu_node, node

GPUS = {"nvidia.com/gpu": 4}
GKE = {"cloud.google.com/gke-accelerator": "nvidia-l4", "cloud.google.com/gke-accelerator-count": "4"}
KARPENTER = {"karpenter.k8s.aws/instance-gpu-name": "a100", "karpenter.k8s.aws/instance-gpu-memory": "81920"}


@pytest.mark.parametrize(
    ("raw", "product", "count", "evidence"),
    [
        pytest.param(
            gpu_node("a", "NVIDIA-L4", 4),
            "NVIDIA-L4",
            4,
            "nvidia.com/gpu.product",
            id="GPU feature discovery",
        ),
        pytest.param(
            gpu_node("a", "A100-SXM4-80GB", 4),
            "NVIDIA-A100-SXM4-80GB",
            4,
            "gpu.product",
            id="label of an old driver",
        ),
        pytest.param(
            gpu_node("a", "NVIDIA-L4", 4, labels=KARPENTER),
            "NVIDIA-L4",
            4,
            "gpu.product",
            id="GFD beats Karpenter",
        ),
        pytest.param(
            node("a", labels={**KARPENTER, **GKE}, extended=GPUS),
            "NVIDIA-A100-SXM4-80GB",
            4,
            "karpenter.k8s.aws/instance-gpu-name",
            id="Karpenter beats GKE, and memory tells its two A100 apart",
        ),
        pytest.param(
            node("a", labels={"eks.amazonaws.com/instance-gpu-name": "l40s"}, extended=GPUS),
            "NVIDIA-L40S",
            4,
            "eks.amazonaws.com/instance-gpu-name",
            id="EKS Auto Mode",
        ),
        pytest.param(node("a", labels=GKE, extended=GPUS), "NVIDIA-L4", 4, "gke-accelerator", id="GKE alone"),
        pytest.param(
            node(
                "a",
                labels={"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"},
                extended={"amd.com/gpu": 8},
            ),
            "AMD_Instinct_MI300X_OAM",
            8,
            "amd.com/gpu.product-name",
            id="an AMD node is recognised",
        ),
        pytest.param(
            gpu_node("a", "NVIDIA-L4", 8, extended={"nvidia.com/gpu": 7}, capacity={"nvidia.com/gpu": 8}),
            "NVIDIA-L4",
            7,
            "gpu.product",
            id="a GPU that the kubelet took out as unhealthy cannot be asked for",
        ),
    ],
)
def test_gpus_are_identified(raw: dict[str, Any], product: str, count: int, evidence: str) -> None:
    facts = node_facts(raw)
    assert facts.refusal is None
    assert facts.gpus is not None
    assert (facts.gpus.gpu.name, facts.gpus.count) == (product, count)
    assert evidence in facts.gpus.evidence
    assert set(facts.gpus.node_selector.items()) <= set(facts.labels.items())


@pytest.mark.parametrize(
    ("raw", "reason", "words"),
    [
        pytest.param(
            node("gpu-7", extended=GPUS), Reason.UNKNOWN_GPU, "no label says", id="no labels at all"
        ),
        pytest.param(
            gpu_node("gpu-7", "NVIDIA-H900", 4),
            Reason.UNKNOWN_GPU,
            "NVIDIA-H900",
            id="a product nobody knows",
        ),
        pytest.param(
            gpu_node("gpu-7", "Tesla-T4-SHARED", 1, extended={"nvidia.com/gpu": 4}),
            Reason.UNSUPPORTED_GPU,
            "SharedGPU",
            id="time-slicing shows in the product",
        ),
        pytest.param(
            node(
                "gpu-7",
                labels=gfd_labels("Tesla-T4", 1, **{"gpu.replicas": "4", "gpu.sharing-strategy": "mps"}),
                extended=GPUS,
            ),
            Reason.UNSUPPORTED_GPU,
            "SharedGPU",
            id="MPS shows in the sharing strategy",
        ),
        pytest.param(
            node("gpu-7", labels=gfd_labels("Tesla-T4", 1), extended={"nvidia.com/gpu.shared": 4}),
            Reason.UNSUPPORTED_GPU,
            "SharedGPU",
            id="a renamed resource is sharing too",
        ),
        pytest.param(
            gpu_node("gpu-7", "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", 7),
            Reason.UNSUPPORTED_GPU,
            "MIG slices",
            id="MIG in single strategy",
        ),
        pytest.param(
            gpu_node("gpu-7", "NVIDIA-A100-SXM4-40GB", 8, extended={"nvidia.com/mig-3g.20gb": 16}),
            Reason.UNSUPPORTED_GPU,
            "nvidia.com/mig-3g.20gb",
            id="MIG in mixed strategy",
        ),
        pytest.param(
            gpu_node("gpu-7", "NVIDIA-A100-SXM4-40GB-MIG-INVALID", 0, extended={}),
            Reason.UNSUPPORTED_GPU,
            "invalid MIG",
            id="MIG enabled on some GPUs only",
        ),
        pytest.param(
            node(
                "gpu-7", labels=gfd_labels("NVIDIA-L4", 4, **{"mig.config.state": "pending"}), extended=GPUS
            ),
            Reason.UNSUPPORTED_GPU,
            "repartitioned",
            id="MIG is being changed",
        ),
        pytest.param(
            gpu_node("gpu-7", "NVIDIA-L4", 2, extended=GPUS),
            Reason.UNKNOWN_GPU,
            "AmbiguousGPUs",
            id="labels of one model, devices of two",
        ),
        pytest.param(
            gpu_node("gpu-7", "NVIDIA-L4", 4, extended={}),
            Reason.INSUFFICIENT_GPUS,
            "device plugin",
            id="labelled, but the device plugin offers nothing",
        ),
        pytest.param(
            node("gpu-7", labels={**GKE, "cloud.google.com/gke-gpu-partition-size": "1g.5gb"}, extended=GPUS),
            Reason.UNSUPPORTED_GPU,
            "MIG",
            id="partitioned by GKE",
        ),
        pytest.param(
            node("gpu-7", extended={"amd.com/gpu": 8}), Reason.UNKNOWN_GPU, "amd.com/gpu", id="unlabelled AMD"
        ),
        pytest.param(
            node("gpu-7", extended={"habana.ai/gaudi": 8}),
            Reason.UNSUPPORTED_GPU,
            "Gaudi",
            id="another accelerator",
        ),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(raw: dict[str, Any], reason: Reason, words: str) -> None:
    facts = node_facts(raw)
    assert facts.gpus is None
    assert facts.refusal is not None
    assert facts.refusal.reason is reason
    assert "gpu-7" in facts.refusal.message
    assert words in facts.refusal.sentence
    assert facts.refusal.hint


def test_an_unlabelled_node_says_how_to_label_it() -> None:
    refusal = node_facts(node("gpu-7", extended=GPUS)).refusal
    assert refusal is not None
    assert "kubectl label node gpu-7 nvidia.com/gpu.product=" in refusal.hint


def test_memory_is_the_labels_scaled_to_what_cuda_sees() -> None:
    gpu = find_gpu("NVIDIA-RTX-A6000")
    assert gpu is not None
    raw = node("a", labels=gfd_labels("NVIDIA-RTX-A6000", 4, **{"gpu.memory": "49140"}), extended=GPUS)
    facts = node_facts(raw)
    assert facts.gpus is not None
    expected = 49140 * 2**20 * gpu.cuda_total_bytes / gpu.nvml_memory_bytes
    assert facts.gpus.total_memory_bytes == pytest.approx(expected, abs=1)


def test_a_node_without_gpus_is_just_that() -> None:
    facts = node_facts(node("cpu-1", memory="16Gi"))
    assert (facts.gpus, facts.refusal, facts.is_gpu_node) == (None, None, False)
    assert facts.allocatable.memory_bytes == 16 * 2**30


def test_readiness_cordon_and_taints_are_facts() -> None:
    facts = node_facts(
        node("a", ready=False, unschedulable=True, taints=[{"key": "k", "effect": "NoSchedule"}])
    )
    assert not facts.ready
    assert facts.unschedulable
    assert str(facts.taints[0]) == "k:NoSchedule"


def test_a_hand_written_node_without_conditions_counts_as_ready() -> None:
    assert node_facts(
        {"kind": "Node", "metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "4"}}}
    ).ready
