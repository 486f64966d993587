"""The command line: `python -m e2e.localnode --kubeconfig K --inventory FILE… --state-dir D`.

Prints one line when its nodes are registered and runs until SIGTERM or SIGINT. Variables that the allow-list
of images refers to (`${NAME}`) come from the environment.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from e2e.controlplane.netns import become_root
from e2e.localnode.api_client import ApiError
from e2e.localnode.images import ImageCatalog, ImageError
from e2e.localnode.inventory import InventoryError, load_inventory
from e2e.localnode.local_node import LocalNode, LocalNodeOptions

_REPOSITORY = Path(__file__).resolve().parents[2]


class LocalNodeFailed(Exception):
    """The node cannot go on because of an error of its own."""


def image_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what `${NAME}` may stand for: variables, the checkout, this interpreter's environment."""
    return {"STOWAGE_REPO": str(_REPOSITORY), "STOWAGE_VENV": sys.prefix, **environment}


async def serve(options: LocalNodeOptions, inventory: list[Path], images: Path) -> None:
    """Play the nodes until a signal asks to stop."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    catalog = ImageCatalog.load(images, image_variables(os.environ))
    async with LocalNode(options, load_inventory(inventory), catalog) as node:
        print(f"ready: {node.describe()}", flush=True)
        failed = asyncio.create_task(node.wait_failed())
        await asyncio.wait({asyncio.create_task(stopped.wait()), failed}, return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            raise LocalNodeFailed("a part of the node ended; its log says why")


def main(arguments: list[str]) -> int:
    """Run; returns 2 with one sentence for input that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m e2e.localnode", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument(
        "--inventory", type=Path, action="append", required=True, help="a file of Node manifests"
    )
    parser.add_argument("--state-dir", type=Path, required=True, help="a directory of this node's own")
    parser.add_argument("--images", type=Path, default=_REPOSITORY / "e2e" / "images.yaml")
    parser.add_argument("--back-off", type=float, default=1.0, help="seconds before the second restart")
    parser.add_argument(
        "--pod-network", default="", help="default: 10.244.0.0/16 if it is local, else loopback"
    )
    parser.add_argument("--remove-nodes", action="store_true", help="delete the Node objects at the end")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args(arguments)
    # Volumes need mounts, and mounts need a root: one of a user namespace will do, where the machine allows it.
    if os.geteuid() != 0:
        with contextlib.suppress(OSError):
            become_root()
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    settings = LocalNodeOptions(
        kubeconfig=options.kubeconfig,
        state_dir=options.state_dir,
        back_off_seconds=options.back_off,
        pod_network=options.pod_network,
        remove_nodes=options.remove_nodes,
    )
    try:
        asyncio.run(serve(settings, options.inventory, options.images))
    except (InventoryError, ImageError, ApiError, LocalNodeFailed, OSError) as error:
        print(f"local node: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
