"""The catalog: every number has an origin, and every name the world uses leads to the right card."""

from __future__ import annotations

import re

import pytest

from stowage.hardware.catalog import catalog, find_gpu, nearest_names
from stowage.hardware.gpu import Gpu

EVERY_GPU = [pytest.param(gpu, id=gpu.name) for gpu in catalog().gpus]
# An export part whose compute was cut and whose bandwidth was not.
LOW_RIDGE = {"NVIDIA-H20-141GB", "NVIDIA-H20"}


@pytest.mark.parametrize("gpu", EVERY_GPU)
def test_every_number_has_a_source_and_a_day(gpu: Gpu) -> None:
    needed = {"nvml_memory_mib", "cuda_total_gib", "memory_gb_per_second", "link_gb_per_second"}
    assert needed <= set(gpu.evidence)
    assert {"bf16_tflops", "fp16_tflops"} & set(gpu.evidence)
    for number, evidence in gpu.evidence.items():
        assert evidence.source in catalog().sources, number
        assert re.fullmatch(r"(\d{4}-\d\d-\d\d)?", evidence.checked), number


@pytest.mark.parametrize("gpu", EVERY_GPU)
def test_ridge_points_are_physical(gpu: Gpu) -> None:
    low = 30 if gpu.name in LOW_RIDGE else 50
    # A Thor has the matrix units of Blackwell on the memory of a laptop.
    high = 1000 if gpu.name == "NVIDIA-Jetson-AGX-Thor" else 700
    assert low <= gpu.ridge_flops_per_byte <= high


@pytest.mark.parametrize("gpu", EVERY_GPU)
def test_cuda_sees_a_little_less_than_the_driver_reports(gpu: Gpu) -> None:
    assert 0.97 <= gpu.cuda_total_bytes / gpu.nvml_memory_bytes <= 1.0


def test_names_are_unique() -> None:
    names = [name.lower() for gpu in catalog().gpus for name in (gpu.name, *gpu.aliases)]
    assert len(names) == len(set(names))


def test_cloud_names_lead_to_gpus_of_the_catalog() -> None:
    for name in (*catalog().gke.values(), *catalog().karpenter.values()):
        assert find_gpu(name) is not None, name


@pytest.mark.parametrize(
    ("name", "product"),
    [
        pytest.param("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-80GB-HBM3", id="the product label"),
        pytest.param(
            "H100-80GB-HBM3", "NVIDIA-H100-80GB-HBM3", id="without the vendor, as older drivers write it"
        ),
        pytest.param("NVIDIA H100 80GB HBM3", "NVIDIA-H100-80GB-HBM3", id="the name that nvidia-smi prints"),
        pytest.param("h100", "NVIDIA-H100-80GB-HBM3", id="what people say"),
        pytest.param("A100-SXM4-80GB", "NVIDIA-A100-SXM4-80GB", id="an old A100 label"),
        pytest.param("T4", "Tesla-T4", id="a Tesla without its prefix"),
        pytest.param("RTX 4090", "NVIDIA-GeForce-RTX-4090", id="a consumer card"),
        pytest.param("mi300x", "AMD_Instinct_MI300X_OAM", id="an AMD card"),
        pytest.param("L40S", "NVIDIA-L40S", id="L40S is not L40"),
    ],
)
def test_a_gpu_is_found_by_every_usual_name(name: str, product: str) -> None:
    gpu = find_gpu(name)
    assert gpu is not None
    assert gpu.name == product


def test_an_unknown_gpu_is_not_guessed_but_neighbours_are_named() -> None:
    assert find_gpu("NVIDIA-H900-SXM9") is None
    assert "NVIDIA-L40S" in nearest_names("NVIDIA-L40-S")


def test_the_l4_has_its_own_bandwidth_and_not_that_of_an_h100() -> None:
    gpu = find_gpu("L4")
    assert gpu is not None
    assert gpu.memory_bytes_per_second == 300 * 10**9
