"""What releases and vendors' software change: only what a publication says, and nothing of it is fitted."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest

from stowage.hardware.catalog import catalog
from stowage.performance.efficiencies import efficiencies, efficiencies_of

_TABLE = tomllib.loads(
    files("stowage.performance").joinpath("circumstances.toml").read_text(encoding="utf-8")
)


def test_every_entry_names_a_source() -> None:
    rows = (*_TABLE["host"], *_TABLE["products"], *_TABLE["memory"])
    assert {row["source"] for row in rows} <= set(_TABLE["sources"])


def test_every_gpu_that_an_entry_names_is_in_the_catalog() -> None:
    known = {gpu.name for gpu in catalog().gpus}
    assert {name for row in _TABLE["products"] for name in row["gpus"]} <= known


def test_the_current_engine_on_the_gpu_of_the_fit_takes_the_fitted_table_as_it_is() -> None:
    assert efficiencies_of("NVIDIA-H100-80GB-HBM3", "NVIDIA", "V1", "0.20.0") == efficiencies()


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        pytest.param(
            ("V0", "0.4.3"), ("V0", "0.6.3"), id="from 0.6.0 on the host works behind the GPU in part"
        ),
        pytest.param(("V0", "0.6.3"), ("V1", "0.9.0"), id="the second engine has little host time"),
    ],
)
def test_newer_engines_wait_less_for_the_host(older: tuple[str, str], newer: tuple[str, str]) -> None:
    before, after = (efficiencies_of("NVIDIA-L4", "NVIDIA", *which) for which in (older, newer))
    assert before.host_seconds + 100 * before.host_request_seconds > 1.2 * (
        after.host_seconds + 100 * after.host_request_seconds
    )
    assert before.matrix == after.matrix


def test_another_vendors_software_reaches_smaller_shares() -> None:
    other, own = efficiencies_of("AMD_Instinct_MI300X_OAM", "AMD", "V1", "0.20.0"), efficiencies()
    assert other.matrix < own.matrix
    assert other.attention < own.attention
    assert other.bandwidth < own.bandwidth
    assert other.host_seconds == own.host_seconds
