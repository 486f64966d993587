"""Where pools are declared: in the operator's file, and below the nodes of an inventory file."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
import yaml

from stowage.app import main
from stowage.commands.inventory_file import read_inventory
from stowage.feed.grants import Grants
from stowage.feed.models.resolutions import Resolutions
from stowage.feed.snapshot import Knowledge
from stowage.feed.verdicts import Verdicts
from stowage.hardware.pool_file import read_pools
from stowage.kube.kinds import NODE as NODE_KIND
from stowage.kube.store import Store
from stowage.settings import BadSetting, read_settings
from stowage.world import EngineOptions, Key, ModelQuery
from stowage_runtime.contract import CheckpointSummary
from tests.hardware.objects import gpu_node, pod
from tests.hardware.test_pool_file import POOL

NODE = gpu_node("a", "NVIDIA-L4", 4)


def written(path: Path, *documents: object) -> str:
    path.write_text(yaml.safe_dump_all(documents))
    return str(path)


@pytest.mark.parametrize(
    "documents",
    [
        pytest.param((NODE, {"pools": [POOL]}), id="a document of its own"),
        pytest.param(({"kind": "List", "items": [NODE], "pools": [POOL]},), id="beside the items of a list"),
    ],
)
def test_an_inventory_file_may_declare_pools(tmp_path: Path, documents: tuple[object, ...]) -> None:
    inventory = read_inventory(written(tmp_path / "nodes.yaml", *documents), "default", "llama")
    assert [room.facts.name for room in inventory.nodes] == ["a", "h100/new-1", "h100/new-2", "h100/new-3"]


def test_pools_alone_are_an_inventory(tmp_path: Path) -> None:
    inventory = read_inventory(written(tmp_path / "pools.yaml", {"pools": [POOL]}), "default", "llama")
    assert len(inventory.nodes) == POOL["maxNodes"]


def test_a_pod_of_the_file_is_not_on_a_node_to_come(tmp_path: Path) -> None:
    foreign = pod("p", {"nvidia.com/gpu": "8"}, on="h100-node-1")
    path = written(tmp_path / "nodes.yaml", NODE, foreign, {"pools": [POOL]})
    assert [room.free_gpus for room in read_inventory(path, "default", "llama").nodes] == [4, 8, 8, 8]


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        pytest.param((NODE, {"pools": 3}), "pools is 3; write a list of pools", id="not a list"),
        pytest.param((NODE, {"pools": [{**POOL, "gpu": "H1"}]}), "pools[0].gpu is 'H1'", id="an unknown GPU"),
        pytest.param(
            (NODE, {"pools": [POOL]}, {"pools": []}), "has pools: 2 times; write one list", id="pools twice"
        ),
        pytest.param(({"pools": []},), "holds no Node", id="neither nodes nor pools"),
        pytest.param(
            ({"pools": [POOL], "more": 1},), "not a Kubernetes object", id="something else beside them"
        ),
    ],
)
def test_a_mistake_in_an_inventory_file_is_said(
    tmp_path: Path, documents: tuple[object, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught:
        read_inventory(written(tmp_path / "nodes.yaml", *documents), "default", "llama")
    assert caught.value.exit_code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert words in said


def test_the_operator_reads_its_pools_from_a_file(tmp_path: Path) -> None:
    path = written(tmp_path / "pools.yaml", {"pools": [POOL]})
    assert [pool.name for pool in read_settings(["--pools", path], {}).node_pools()] == ["h100"]
    assert [pool.name for pool in read_settings([], {"STOWAGE_POOLS": path}).node_pools()] == ["h100"]
    assert read_settings([], {}).node_pools() == ()


def test_the_operator_does_not_start_with_pools_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "pools.yaml", {"pools": [{**POOL, "maxNodes": "3"}]})
    with pytest.raises(BadSetting):
        read_settings(["--pools", path], {}).node_pools()
    assert main(["--pools", path]) == 2
    assert f"Setting pools: {path}: pools[0].maxNodes is '3'; write a whole number" in capsys.readouterr().err


def test_what_is_declared_is_in_the_room_that_the_operator_plans_on() -> None:
    store = Store(frozenset())
    store.observe(NODE_KIND, {**NODE, "metadata": {**NODE["metadata"], "resourceVersion": "1"}})
    knowledge = Knowledge(
        store=store,
        grants=Grants(store),
        verdicts=Verdicts(),
        resolutions=Resolutions(_unread, lambda key, seconds: None),
        reports=lambda key: (),
        options=EngineOptions("agent:1", "0.32.0", {}),
        pools=read_pools([POOL]),
    )
    names = [room.facts.name for room in knowledge.inventory(Key("default", "llama")).nodes]
    assert names == ["a", "h100/new-1", "h100/new-2", "h100/new-3"]


async def _unread(question: ModelQuery) -> CheckpointSummary:
    raise AssertionError(question)
