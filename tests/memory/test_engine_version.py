"""The table of releases: what changed when, and what happens with versions that are not in it."""

from __future__ import annotations

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.release.engine_version import engine_version, newest_engine_version
from tests.memory.support import version


@pytest.mark.parametrize(
    ("name", "utilization", "graphs", "snapshot", "equation", "v2_also"),
    [
        pytest.param("0.8.5", 0.90, False, "device", "device-used", "none", id="0.8 counts the whole device"),
        pytest.param(
            "0.9.2", 0.90, False, "before-nccl", "torch-peak", "none", id="0.9 counts communicators"
        ),
        pytest.param("0.10.2", 0.90, False, "before-nccl", "torch-peak", "none", id="0.10 does too"),
        pytest.param("0.11.0", 0.90, False, "after-nccl", "torch-peak", "none", id="0.11 leaves them out"),
        pytest.param("0.19.1", 0.90, False, "after-nccl", "torch-peak", "none", id="0.19 logs graphs only"),
        pytest.param("0.20.0", 0.92, True, "after-nccl", "torch-peak", "none", id="0.20 subtracts graphs"),
        pytest.param(
            "0.27.0", 0.92, True, "after-nccl", "total-consumed", "dense", id="0.27 counts segments"
        ),
        pytest.param(
            "0.29.0", 0.92, True, "after-nccl", "total-consumed", "all", id="0.29 has the second runner"
        ),
        pytest.param("0.32.0", 0.92, True, "after-nccl", "total-consumed", "all", id="the newest"),
    ],
)
def test_accounting_by_release(
    name: str, utilization: float, graphs: bool, snapshot: str, equation: str, v2_also: str
) -> None:
    found = version(name)
    assert found.default_gpu_memory_utilization == utilization
    assert found.graphs_subtracted is graphs
    assert (found.snapshot, found.equation, found.v2_also) == (snapshot, equation, v2_also)
    assert found.assumed_from is None
    assert found.note is None


@pytest.mark.parametrize(
    ("name", "report", "reserved", "limit"),
    [
        pytest.param("0.20.0", "blocks", False, None, id="0.20.0"),
        pytest.param("0.20.2", "concurrency", False, None, id="0.20.2 reports by concurrency"),
        pytest.param("0.21.0", "concurrency", False, 20 * 2**20, id="0.21 limits splitting"),
        pytest.param("0.29.0", "concurrency", True, 20 * 2**20, id="0.29 plans for the null block"),
    ],
)
def test_reporting_by_release(name: str, report: str, reserved: bool, limit: int | None) -> None:
    found = version(name)
    assert found.capacity_report == report
    assert found.null_block_reserved is reserved
    assert found.allocator_split_limit_bytes == limit


def test_a_newer_release_takes_the_newest_known_one_and_says_so() -> None:
    found = version("0.99.1")
    assert (found.version, found.assumed_from) == ("0.99.1", newest_engine_version())
    assert found.note is not None
    assert "0.99.1" in found.note
    assert found.v2_also == version(newest_engine_version()).v2_also


@pytest.mark.parametrize(
    ("name", "like"),
    [
        pytest.param("v0.11.0", "0.11.0", id="a leading v"),
        pytest.param("0.8.5.post1", "0.8.5", id="a post release"),
        pytest.param("0.10.1.1", "0.10.1", id="a fourth number"),
        pytest.param("0.14.0rc1.dev2+g7d9f6663a.d20260121", "0.14.0", id="a build of a candidate"),
        pytest.param("0.32", "0.32.0", id="two numbers only"),
    ],
)
def test_suffixes_are_understood(name: str, like: str) -> None:
    assert version(name).equation == version(like).equation
    assert version(name).sampler == version(like).sampler


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("latest", id="a word"),
        pytest.param("", id="nothing"),
        pytest.param("0", id="one number"),
        pytest.param("0.1.dev18496+gd4e0675a7", id="a development build without a version"),
        pytest.param("0.1.7", id="a release before the first one that is sized"),
        pytest.param("0.32.0; rm -rf /", id="something nasty"),
    ],
)
def test_anything_else_is_refused(name: str) -> None:
    answer = engine_version(name)
    assert isinstance(answer, Refusal)
    assert answer.reason.value == "UnsupportedEngineVersion"
    assert answer.hint
