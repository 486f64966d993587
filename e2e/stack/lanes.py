"""Lanes: small simulated GPU nodes of a stack's own, so that tests do not compete for GPUs.

Each lane is one node like those of `e2e/inventories`, with a label that a nodeSelector picks it by. It must never
invent GPU labels: they are those of the inventory that it copies.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

LANE_LABEL = "e2e.stowage.dev/lane"
_INVENTORIES = Path(__file__).resolve().parents[1] / "inventories"
_HOSTNAME = "kubernetes.io/hostname"


def lane_node(name: str, lane: str, inventory: str = "4x-l4") -> dict[str, Any]:
    """The first node of an inventory under another name, in a lane."""
    return renamed_node(_documents(inventory)[0], name, {LANE_LABEL: lane})


def renamed_node(node: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """A copy of a node under another name, with additional labels."""
    copied = copy.deepcopy(dict(node))
    metadata = copied["metadata"]
    metadata["name"] = name
    metadata["labels"] = {**metadata["labels"], _HOSTNAME: name, **labels}
    return copied


def write_lanes(file: Path, lanes: int, cpu_node: str) -> list[str]:
    """Write an inventory with so many lanes and one CPU node that pods of no lane run on; gives the lanes' names."""
    names = [f"lane-{number}" for number in range(1, lanes + 1)]
    nodes = [lane_node(f"e2e-{name}", name) for name in names]
    nodes.append(renamed_node(_documents("cpu-local")[0], cpu_node, {}))
    file.write_text(yaml.safe_dump_all(nodes), encoding="utf-8")
    return names


def _documents(inventory: str) -> list[dict[str, Any]]:
    text = (_INVENTORIES / f"{inventory}.yaml").read_text(encoding="utf-8")
    return [document for document in yaml.safe_load_all(text) if document]
