"""The page about node pools shows a declaration that is read, and explains every field of it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from stowage.hardware.pool_file import read_pools

PAGE = (Path(__file__).parents[2] / "docs" / "node-pools.md").read_text(encoding="utf-8")


def test_the_example_is_read() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    declared = yaml.safe_load(example)
    (pool,) = read_pools(declared["pools"])
    assert (pool.name, pool.max_nodes, pool.gpus.count) == ("h100", 4, 8)
    assert dict(pool.gpus.node_selector) == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
    explained = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE))))
    assert explained == set(declared["pools"][0])
