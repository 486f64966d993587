from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.localnode.inventory import load_inventory
from e2e.localnode.simulated_gpus import VARIABLE, describe_gpus

REPOSITORY = Path(__file__).resolve().parents[2]
TOOL = REPOSITORY / "e2e" / "fakebin" / "nvidia-smi"


def describe(inventory: str, **held: int) -> Any:
    (node,) = load_inventory([REPOSITORY / "e2e" / "inventories" / f"{inventory}.yaml"])
    resources = {name.replace("_", "/"): str(count) for name, count in held.items()}
    text = describe_gpus(node, {"resources": {"limits": resources}})
    return text and json.loads(text)


def nvidia_smi(facts: object, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": os.environ["PATH"], **({VARIABLE: json.dumps(facts)} if facts else {})}
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments], env=variables, capture_output=True, text=True, check=False
    )


QUERY = ("--query-gpu=name,memory.total,compute_cap,driver_version", "--format=csv,noheader,nounits")


def test_a_container_sees_the_gpus_that_it_holds() -> None:
    facts = describe("8x-h100", **{"nvidia.com_gpu": 2})
    assert facts == {
        "product": "NVIDIA H100 80GB HBM3",
        "memory_mib": 81559,
        "count": 2,
        "compute_capability": "9.0",
        "driver_version": "570.133.20",
    }
    assert nvidia_smi(facts, *QUERY).stdout == "NVIDIA H100 80GB HBM3, 81559, 9.0, 570.133.20\n" * 2


@pytest.mark.parametrize(
    ("inventory", "held", "product", "profile"),
    [
        pytest.param(
            "a100-mig-single", {"nvidia.com_gpu": 1}, "NVIDIA A100-SXM4-80GB", "1g.10gb", id="equal slices"
        ),
        pytest.param(
            "a100-mig-mixed",
            {"nvidia.com_mig-3g.40gb": 1},
            "NVIDIA A100-SXM4-80GB",
            "3g.40gb",
            id="a profile",
        ),
        pytest.param("t4-time-sliced", {"nvidia.com_gpu": 1}, "Tesla T4", None, id="a shared card"),
    ],
)
def test_slices_and_shares(inventory: str, held: dict[str, int], product: str, profile: str | None) -> None:
    facts = describe(inventory, **held)
    assert (facts["product"], facts.get("mig_profile")) == (product, profile)


def test_a_slice_is_listed_below_its_card_and_the_query_shows_the_card() -> None:
    facts = describe("a100-mig-single", **{"nvidia.com_gpu": 2})
    assert nvidia_smi(facts, *QUERY).stdout == "NVIDIA A100-SXM4-80GB, 81920, 8.0, 570.133.20\n"
    lines = nvidia_smi(facts, "-L").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["GPU", "MIG", "MIG"]


@pytest.mark.parametrize(
    ("inventory", "held"),
    [
        pytest.param("8x-h100", {}, id="a container that asks for none"),
        pytest.param("8x-mi300x", {"amd.com_gpu": 1}, id="GPUs that nvidia-smi does not know"),
    ],
)
def test_no_description(inventory: str, held: dict[str, int]) -> None:
    assert describe(inventory, **held) is None


def test_without_gpus_the_tool_says_so_and_fails() -> None:
    result = nvidia_smi(None, *QUERY)
    assert (result.returncode, result.stdout) == (6, "No devices were found\n")


def test_unlabelled_facts_are_not_available() -> None:
    facts = describe("gpus-without-labels", **{"nvidia.com_gpu": 1})
    assert nvidia_smi(facts, *QUERY).stdout == ", [N/A], [N/A], [N/A]\n"


def test_an_unknown_field_is_refused_as_the_real_tool_does() -> None:
    facts = describe("4x-l4", **{"nvidia.com_gpu": 1})
    result = nvidia_smi(facts, "--query-gpu=name,colour", "--format=csv")
    assert (result.returncode, result.stdout) == (2, 'Field "colour" is not a valid field to query.\n')


def test_units_and_header_are_printed_unless_they_are_switched_off() -> None:
    facts = describe("4x-l4", **{"nvidia.com_gpu": 1})
    result = nvidia_smi(facts, "--query-gpu=index,memory.total", "--format=csv")
    assert result.stdout.splitlines() == ["index, memory.total [MiB]", "0, 23034 MiB"]
