"""Opens MIG slices and time-sliced GPUs to a deployment that names them, and to nobody else.

Planning sees such a node as if the named device were all that it has. Nothing here decides whether a device suits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from stowage.hardware.gpu_sharing import find_device
from stowage.hardware.inventory import Inventory
from stowage.hardware.room import NodeRoom


def with_requested(inventory: Inventory, names: Iterable[str]) -> Inventory:
    """Give the inventory with the devices that `names` (spec.hardware.gpus) ask for in place of the refusals.

    A node that offers several of them appears once for each.
    """
    wanted = {gpu.name for gpu in map(find_device, names) if gpu is not None}
    if not any(node.facts.on_request for node in inventory.nodes) or not wanted:
        return inventory
    nodes = tuple(each for node in inventory.nodes for each in _opened(node, wanted))
    return replace(inventory, nodes=nodes)


def _opened(node: NodeRoom, wanted: set[str]) -> Iterator[NodeRoom]:
    found = [gpus for gpus in node.facts.on_request if gpus.gpu.name in wanted]
    if not found:
        yield node
    for gpus in found:
        yield replace(node, facts=replace(node.facts, gpus=gpus, refusal=None, on_request=()))
