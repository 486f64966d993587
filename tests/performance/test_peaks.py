"""The peaks and links of the catalog that the performance model rests on: sources, orders, and reach of bridges."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stowage.hardware.catalog import catalog
from stowage.performance.efficiencies import efficiencies
from stowage.performance.exchange import exchange
from stowage.performance.pace import exponentials_per_second
from tests.performance.replicas import gpu_named

NEW = ("int8_tops", "fp4_tflops", "integer_tops")


def test_every_peak_has_a_source_of_the_table() -> None:
    for gpu in catalog().gpus:
        assert gpu.integer_ops > 0, gpu.name
        assert "integer_tops" in gpu.evidence, gpu.name
        for name in NEW:
            if name in gpu.evidence:
                assert gpu.evidence[name].source in catalog().sources, (gpu.name, name)


def test_formats_of_fewer_bits_are_never_slower() -> None:
    for gpu in catalog().gpus:
        wide = gpu.bf16_flops or gpu.fp16_flops
        for narrow in (gpu.fp8_flops, gpu.int8_ops, gpu.fp4_flops):
            assert narrow is None or narrow >= 0.99 * wide, gpu.name
        if gpu.fp4_flops and gpu.fp8_flops:
            assert gpu.fp4_flops >= 1.9 * gpu.fp8_flops, gpu.name


@pytest.mark.parametrize(
    ("name", "fp4", "int8"),
    [
        pytest.param("A100-80GB", False, True, id="Ampere has INT8"),
        pytest.param("L40S", False, True, id="Ada has INT8"),
        pytest.param("H100", False, True, id="Hopper has INT8"),
        pytest.param("B200", True, False, id="Blackwell has FP4, and no INT8 kernels"),
        pytest.param("RTX-5090", True, False, id="so do its cards for desks"),
        pytest.param("V100", False, False, id="Volta has neither"),
    ],
)
def test_generations_have_their_formats(name: str, fp4: bool, int8: bool) -> None:
    gpu = gpu_named(name)
    assert (gpu.fp4_flops is not None, gpu.int8_ops is not None) == (fp4, int8)


@pytest.mark.parametrize(
    ("name", "fast", "reach"),
    [
        pytest.param("H100", True, None, id="NVLink through switches joins all"),
        pytest.param("NVIDIA-H200-NVL", True, 4, id="a bridge of four"),
        pytest.param("NVIDIA-H100-NVL", True, 2, id="a bridge of pairs"),
        pytest.param("L40S", False, None, id="PCIe"),
        pytest.param("MI300X", True, None, id="Infinity Fabric"),
    ],
)
def test_links_are_told_apart(name: str, fast: bool, reach: int | None) -> None:
    gpu = gpu_named(name)
    assert (gpu.has_fast_link, gpu.link_reach) == (fast, reach)


def test_ranks_beyond_a_bridge_go_through_the_host() -> None:
    gpu, table = gpu_named("NVIDIA-H100-NVL"), efficiencies()
    assert not exchange(2, gpu, table, True).through_host
    assert exchange(4, gpu, table, True).through_host
    slow, fast = (exchange(ranks, gpu, table, True).bytes_per_second for ranks in (4, 2))
    assert slow < fast


@pytest.mark.parametrize("size", [1e3, 1e5, 1e7, 1e9])
def test_sums_take_the_faster_of_one_shot_and_two_and_grow_with_ranks(size: float) -> None:
    gpu, table = gpu_named("A100-80GB"), efficiencies()
    times = [exchange(ranks, gpu, table, True).all_reduce_seconds(size) for ranks in (1, 2, 4, 8)]
    assert times[0] == 0
    assert times == sorted(times)


@pytest.mark.parametrize("gpu", ["A100-80GB", "H100"])
@pytest.mark.parametrize("size", [1e3, 1e5, 1e7, 1e9])
def test_sums_over_the_network_take_longer_than_inside_a_node(size: float, gpu: str) -> None:
    inside, outside = (exchange(8, gpu_named(gpu), efficiencies(), near) for near in (True, False))
    assert outside.all_reduce_seconds(size) > inside.all_reduce_seconds(size)


@pytest.mark.parametrize(
    ("name", "adds"),
    [
        pytest.param("H100", True, id="switches of Hopper add"),
        pytest.param("B200", True, id="switches of Blackwell add"),
        pytest.param("NVIDIA-A100-SXM4-80GB", False, id="those of Ampere only pass on"),
        pytest.param("NVIDIA-H100-NVL", False, id="a bridge has no switch"),
        pytest.param("MI300X", False, id="Infinity Fabric has no switch"),
    ],
)
def test_switches_that_add_spare_large_sums_over_many_ranks(name: str, adds: bool) -> None:
    way, size = exchange(2 if "NVL" in name else 8, gpu_named(name), efficiencies(), True), 1e8
    assert way.switch_adds is adds
    passed_on = replace(way, switch_adds=False).all_reduce_seconds(size)
    assert (way.all_reduce_seconds(size) < 0.7 * passed_on) is adds
    pair = replace(way, ranks=2)
    assert pair.all_reduce_seconds(size) == replace(pair, switch_adds=False).all_reduce_seconds(size)


def test_exponentials_grew_less_than_matrix_units() -> None:
    hopper, blackwell, ultra = (gpu_named(name) for name in ("H100", "B200", "B300"))
    grown = exponentials_per_second(blackwell) / exponentials_per_second(hopper)
    assert 1 < grown < 0.7 * blackwell.fp16_flops / hopper.fp16_flops
    assert exponentials_per_second(ultra) > 1.8 * exponentials_per_second(blackwell)
    untold = replace(hopper, integer_ops=0)
    assert exponentials_per_second(untold) == pytest.approx(exponentials_per_second(hopper), rel=0.1)


def test_a_gpu_can_be_changed_and_remembered_as_another() -> None:
    gpu = gpu_named("H100")
    assert hash(replace(gpu, evidence={})) == hash(gpu)
    assert replace(gpu, memory_bytes_per_second=1) != gpu
