"""Command line of the hub: `python -m e2e.hub --root DIR [--host H] [--port P]`, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from e2e.hub.server import Hub


def main() -> None:
    """Serve a folder of models; prints the endpoint on one line when it answers."""
    parser = argparse.ArgumentParser(prog="python -m e2e.hub", description="serve models as the Hub does")
    parser.add_argument(
        "--root", type=Path, required=True, help="folder with ORG/NAME/ (main) and ORG/NAME@REVISION/"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    arguments = parser.parse_args()
    if not arguments.root.is_dir():
        parser.error(f"--root {arguments.root} is not a folder: make it, or name another")
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    with Hub(arguments.root, arguments.host, arguments.port) as hub:
        print(f"HF_ENDPOINT={hub.endpoint}", flush=True)
        done.wait()


if __name__ == "__main__":
    main()
