"""Node pools are read as declared, and every mistake in them is said in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stowage.feed.declared_pools import read_declared_pools
from stowage.hardware.pool_file import PoolError, read_pools
from stowage.hardware.taints import Taint

POOL: dict[str, Any] = {
    "name": "h100",
    "gpu": "NVIDIA-H100-80GB-HBM3",
    "gpusPerNode": 8,
    "maxNodes": 3,
    "labels": {"example.com/pool": "h100"},
    "taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}],
    "cpu": "96",
    "memory": "1000Gi",
}


def test_a_pool_says_what_its_next_node_looks_like() -> None:
    (pool,) = read_pools([POOL])
    assert (pool.name, pool.max_nodes, pool.labels) == ("h100", 3, {"example.com/pool": "h100"})
    assert [facts.name for facts in pool.to_come] == ["h100/new-1", "h100/new-2", "h100/new-3"]
    node = pool.to_come[0]
    assert node.gpus is not None
    assert (node.gpus.gpu.name, node.gpus.count, node.gpus.resource_name) == (
        "NVIDIA-H100-80GB-HBM3",
        8,
        "nvidia.com/gpu",
    )
    assert node.taints == (Taint("nvidia.com/gpu", "present", "NoSchedule"),)
    assert (node.allocatable.cpu_millicores, node.allocatable.memory_bytes) == (96_000, 1000 * 2**30)
    assert (node.pool, node.ready, node.unschedulable) == ("h100", True, False)


@pytest.mark.parametrize(
    ("labels", "selector"),
    [
        pytest.param(
            {"example.com/pool": "a", "zone": "z"},
            {"example.com/pool": "a", "zone": "z"},
            id="all declared labels where none says which GPU it is",
        ),
        pytest.param(
            {"example.com/pool": "a", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
            {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
            id="the product where the autoscaler knows it",
        ),
        pytest.param(
            {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb", "example.com/pool": "a"},
            {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"},
            id="GKE's label",
        ),
    ],
)
def test_nodes_to_come_are_picked_only_by_labels_that_are_declared(
    labels: dict[str, str], selector: dict[str, str]
) -> None:
    (pool,) = read_pools([{**POOL, "labels": labels}])
    assert dict(pool.gpus.node_selector) == selector


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param({"a": 1}, "pools is {'a': 1}; write a list", id="not a list"),
        pytest.param(None, "pools is nothing; write a list", id="nothing"),
        pytest.param(["h100"], "pools[0] is 'h100'; write a pool with name, gpu", id="not a mapping"),
        pytest.param([{**POOL, "max": 3}], "pools[0].max is not a field of a pool", id="an unknown field"),
        pytest.param(
            [POOL, POOL], "pools[1].name is h100, as that of an earlier pool", id="the same name twice"
        ),
        pytest.param(
            [{key: value for key, value in POOL.items() if key != "memory"}],
            "pools[0].memory is missing; add it",
            id="a missing field",
        ),
        pytest.param(
            [{**POOL, "name": "a/b"}], "pools[0].name is 'a/b'; write up to 63", id="a name with a slash"
        ),
        pytest.param([{**POOL, "name": 7}], "pools[0].name is 7;", id="a number as name"),
        pytest.param(
            [{**POOL, "gpu": "NVIDIA-H100-80GB"}],
            "which the catalog does not have; try NVIDIA-H100-80GB-HBM3",
            id="an unknown GPU",
        ),
        pytest.param([{**POOL, "gpu": "Tesla-T4-SHARED"}], "the catalog does not have", id="a shared GPU"),
        pytest.param(
            [{**POOL, "gpusPerNode": 0}], "pools[0].gpusPerNode is 0; write a whole number", id="no GPUs"
        ),
        pytest.param([{**POOL, "gpusPerNode": True}], "pools[0].gpusPerNode is True;", id="a truth value"),
        pytest.param(
            [{**POOL, "maxNodes": "many"}], "pools[0].maxNodes is 'many'; write a whole number", id="a word"
        ),
        pytest.param([{**POOL, "maxNodes": -1}], "pools[0].maxNodes is -1;", id="less than none"),
        pytest.param([{**POOL, "maxNodes": 10**6}], "from 0 to 1000", id="more than any cluster has"),
        pytest.param([{**POOL, "labels": {}}], "pools[0].labels is {}; write the labels", id="no labels"),
        pytest.param(
            [{**POOL, "labels": {"a": True}}],
            "pools[0].labels has a: True, which is not text",
            id="a label of YAML's",
        ),
        pytest.param(
            [{**POOL, "labels": {"nvidia.com/gpu.product": "NVIDIA-L4"}}],
            "pools[0].gpu is NVIDIA-H100-80GB-HBM3, but pools[0].labels say NVIDIA-L4",
            id="labels of another GPU",
        ),
        pytest.param(
            [{**POOL, "taints": "gpu"}], "pools[0].taints is 'gpu'; write a list", id="taints as a word"
        ),
        pytest.param(
            [{**POOL, "taints": [{"key": "a", "effect": "Never"}]}],
            "pools[0].taints[0] is",
            id="an effect that does not exist",
        ),
        pytest.param([{**POOL, "cpu": "lots"}], "pools[0]: Resource cpu: 'lots' is not", id="not a quantity"),
        pytest.param([{**POOL, "memory": "0"}], "pools[0].memory is '0'; write what pods", id="no memory"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_field(data: Any, words: str) -> None:
    with pytest.raises(PoolError) as caught:
        read_pools(data)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("pools: [", "is not valid YAML", id="broken YAML"),
        pytest.param("- a", "does not hold pools; write pools:", id="a list"),
        pytest.param("pools: []\nmore: 1", "does not hold pools", id="another key"),
        pytest.param("pools: [{name: a}]", "pools[0].gpu is missing", id="an incomplete pool"),
        pytest.param(b"\xff\xfe", "is not UTF-8 text", id="not text"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str | bytes, words: str) -> None:
    path = tmp_path / "pools.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PoolError) as caught:
        read_declared_pools(str(path))
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="cannot be read"):
        read_declared_pools(str(tmp_path / "none.yaml"))


def test_a_file_without_pools_declares_none(tmp_path: Path) -> None:
    path = tmp_path / "pools.yaml"
    path.write_text("pools: []")
    assert read_declared_pools(str(path)) == ()
