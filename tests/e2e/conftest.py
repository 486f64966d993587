"""One stack for all end-to-end tests: real control plane, nodes, Hub and operator; a workspace for each test.

The stack ends with this folder, before other tests start operators of their own on the same control plane.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.controlplane.control_plane import ControlPlane
from e2e.stack import Stack
from e2e.stack.lanes import write_lanes
from tests.e2e.operations import Operations
from tests.e2e.workspace import Workspace

LANES = 6
CPU_NODE = "e2e-cpu"
# A real operator waits longer between two looks; what it does then is the same.
FAST = {
    "STOWAGE_RESYNC_INTERVAL": "3",
    "STOWAGE_FAN_OUT_INTERVAL": "0.5",
    "STOWAGE_CRD_INTERVAL": "0.5",
    "STOWAGE_SCRAPE_INTERVAL": "2",
    "STOWAGE_START_SCRAPE_INTERVAL": "0.5",
    "STOWAGE_STATUS_INTERVAL": "1",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder needs the control plane."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="package")
def operations(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operations]:
    """The stack, and what its keepers do to it."""
    directory = tmp_path_factory.mktemp("stack")
    lanes = write_lanes(directory / "lanes.yaml", LANES, CPU_NODE)
    vllm = os.environ.get("STOWAGE_VLLM_ENV")
    stack = Stack(
        control_plane,
        directory,
        inventories=[directory / "lanes.yaml"],
        vllm_environment=Path(vllm) if vllm else None,
    )
    stack.operator_variables.update(FAST)
    with Operations(stack, lanes) as operations:
        yield operations


@pytest.fixture
def stack(operations: Operations) -> Iterator[Stack]:
    """The stack with all its parts running; a part that ended by itself during the test fails it."""
    operations.bring_up()
    yield operations.stack
    operations.check()


@pytest.fixture
def workspace(operations: Operations, stack: Stack, namespace: str) -> Iterator[Workspace]:
    """A namespace and a lane of GPUs for one test."""
    workspace = Workspace(stack, namespace, operations.next_lane())
    yield workspace
    workspace.clear()


@pytest.fixture(scope="package")
def _refusals(operations: Operations) -> Iterator[str]:
    """One namespace for all tests that launch nothing."""
    name = f"refusals-{secrets.token_hex(4)}"
    operations.stack.cluster.kubectl("create", "namespace", name)
    yield name
    operations.stack.cluster.kubectl("delete", "namespace", name, "--wait=false", check=False)


@pytest.fixture
def desk(operations: Operations, stack: Stack, _refusals: str) -> Iterator[Workspace]:
    """A workspace for LLMDeployments that are refused: names in it must differ between tests."""
    desk = Workspace(stack, _refusals, "lane-1")
    yield desk
    desk.kubectl("delete", "llmd", "--all", "--wait=false", check=False)
