"""What fused all-reduces keep: by release, shape, switches and compute capability."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stowage.memory.collectives import fused_all_reduce_bytes
from stowage.memory.device import DeviceMemory
from tests.memory.support import A100, B200, H100, MIB, ledger_of, shape, version
from tests.model.support import published

SWITCHED = replace(H100, switched=True)
BLACKWELL = replace(B200, switched=True)
BESIDE = 280
"""Mebibytes that come with a workspace, whatever its buffers."""


@pytest.mark.parametrize(
    ("device", "release", "tp", "mebibytes"),
    [
        pytest.param(
            SWITCHED, "0.19.0", 2, 1536 + BESIDE, id="three buffers in pieces of 512 MiB, as logged"
        ),
        pytest.param(SWITCHED, "0.19.0", 4, 1536 + BESIDE, id="small messages take as many pieces"),
        pytest.param(SWITCHED, "0.19.0", 1, 0, id="one rank reduces nothing"),
        pytest.param(SWITCHED, "0.19.0", 6, 0, id="a number of ranks that the kernel does not take"),
        pytest.param(SWITCHED, "0.16.0", 2, 0, id="not yet by default"),
        pytest.param(H100, "0.19.0", 2, 0, id="no switches: PCIe and bridges"),
        pytest.param(replace(A100, switched=True), "0.19.0", 2, 0, id="switches that do not multicast"),
        pytest.param(BLACKWELL, "0.24.0", 4, 1536 + BESIDE, id="Blackwell"),
        pytest.param(
            replace(BLACKWELL, compute_capability=(10, 3)), "0.24.0", 4, 2048 + BESIDE, id="larger messages"
        ),
        pytest.param(SWITCHED, "0.25.1", 2, 2048 + BESIDE, id="for a release, a workspace of either backend"),
        pytest.param(
            SWITCHED, "0.26.0", 2, 512 + BESIDE, id="one buffer since both kinds of patterns share it"
        ),
        pytest.param(
            replace(BLACKWELL, compute_capability=(10, 3)), "0.18.1", 4, 0, id="not Blackwell enough at first"
        ),
    ],
)
def test_workspace(device: DeviceMemory, release: str, tp: int, mebibytes: int) -> None:
    found = fused_all_reduce_bytes(shape(tensor_parallel_size=tp), version(release), device)
    assert found.value == mebibytes * MIB
    assert found.low == 0 <= found.value <= found.high


@pytest.mark.parametrize(
    ("release", "changes", "fused"),
    [
        pytest.param("0.20.2", {"pipeline_parallel_size": 2}, False, id="not with stages at first"),
        pytest.param("0.20.2", {"data_parallel_size": 2}, False, id="not with data parallel ranks at first"),
        pytest.param("0.22.1", {"pipeline_parallel_size": 2}, True, id="with stages from 0.22"),
        pytest.param("0.22.1", {"data_parallel_size": 2}, True, id="with data parallel ranks from 0.22"),
        pytest.param("0.23.0", {"pipeline_parallel_size": 2}, False, id="without stages in 0.23 again"),
        pytest.param("0.23.0", {"data_parallel_size": 2}, True, id="with data parallel ranks in 0.23"),
        pytest.param("0.24.0", {"pipeline_parallel_size": 2}, True, id="with stages from 0.24"),
        pytest.param("0.28.0", {"enforce_eager": True}, False, id="only where the model is compiled"),
        pytest.param("0.32.0", {"enforce_eager": True}, True, id="everywhere in 0.32"),
    ],
)
def test_shapes_that_fuse(release: str, changes: dict[str, Any], fused: bool) -> None:
    asked = shape(tensor_parallel_size=2, **changes)
    assert (fused_all_reduce_bytes(asked, version(release), SWITCHED).value > 0) is fused


def test_it_comes_out_of_the_budget() -> None:
    profile = published("meta-llama--Meta-Llama-3.1-70B")
    with_switch, without = (
        ledger_of(profile, device, "0.19.0", tensor_parallel_size=4) for device in (SWITCHED, H100)
    )
    assert with_switch.non_torch_bytes - without.non_torch_bytes == (1536 + BESIDE) * MIB
    assert without.kv_cache_bytes - with_switch.kv_cache_bytes == (1536 + BESIDE) * MIB
    assert with_switch.in_use_before_bytes > without.in_use_before_bytes


@pytest.mark.parametrize(
    ("release", "changes", "left"),
    [
        pytest.param("0.17.1", {}, 0, id="not tried while memory is profiled"),
        pytest.param("0.18.0", {}, 120, id="tried while memory is profiled"),
        pytest.param("0.18.0", {"enforce_eager": True}, 0, id="nothing to try"),
        pytest.param("0.26.0", {}, 0, id="the V2 runner tries none"),
        pytest.param("0.28.0", {}, 0, id="tried after memory was profiled"),
    ],
)
def test_trial_captures_leave_something(release: str, changes: dict[str, Any], left: int) -> None:
    profile = published("meta-llama--Llama-3.1-8B-Instruct")
    found = ledger_of(profile, H100, release, **changes).non_torch_bytes
    assert found - ledger_of(profile, H100, "0.17.1").non_torch_bytes == left * MIB


@pytest.mark.parametrize(
    ("release", "counted"),
    [
        pytest.param("0.19.1", False, id="not yet"),
        pytest.param("0.21.0", True, id="by the V1 runner"),
        pytest.param("0.26.0", False, id="the V2 runner estimates nothing"),
        pytest.param("0.32.0", True, id="until it does"),
    ],
)
def test_graphs_come_out_of_the_budget_where_the_runner_estimates_them(release: str, counted: bool) -> None:
    found = ledger_of(published("meta-llama--Llama-3.1-8B-Instruct"), H100, release)
    assert found.cuda_graphs_counted is counted
