"""`python -m e2e.demo [--keep | --down]`: runs the scenes on a stack of this user's own."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from e2e.controlplane.binaries import ExistingCluster, find
from e2e.controlplane.build import build
from e2e.controlplane.cluster import KubectlError
from e2e.controlplane.control_plane import ControlPlane, ControlPlaneError
from e2e.controlplane.go_module import GoModule
from e2e.controlplane.progress import Reporter
from e2e.controlplane.state import StateError, default_directory
from e2e.controlplane.wrappers import shell_lines
from e2e.demo.processes_record import ProcessesRecord
from e2e.demo.scenes import deletion_scene, scenes_on
from e2e.demo.stage import DemoFailed, Stage
from e2e.stack import Stack, StackError
from e2e.tinymodel.model import TinyModel

_HOW_MUCH = {True: "All of it", False: "What this machine allows (no pods were run)"}
_INVENTORIES = Path(__file__).resolve().parents[1] / "inventories"


def main() -> int:
    """Run the demo; 0 when every scene kept its promise."""
    parser = argparse.ArgumentParser(prog="python -m e2e.demo", description=__doc__)
    parser.add_argument(
        "--keep", action="store_true", help="leave cluster and operator up, and say how to use them"
    )
    parser.add_argument("--down", action="store_true", help="end what --keep left up")
    options = parser.parse_args()
    reporter = Reporter()
    if options.down:
        return _down(reporter)
    return _run(reporter, keep=options.keep)


def _run(reporter: Reporter, *, keep: bool) -> int:
    started = time.monotonic()
    plane = _control_plane(reporter, detached=keep)
    try:
        plane.start()
    except (ControlPlaneError, StateError) as error:
        print(f"demo failed: {error}. `make down` ends a cluster that was kept.", file=sys.stderr)
        return 1
    stack = _stack(plane, reporter, detached=keep)
    shown = False
    try:
        _show(stack, keep=keep)
        shown = True
        print(f"\n{_HOW_MUCH[stack.runs_pods]} took {time.monotonic() - started:.0f} s.")
        if keep:
            _say_how_to_use(plane)
    except (DemoFailed, StackError, KubectlError) as error:
        print(f"demo failed: {error}\nThe logs are in {stack.directory}.", file=sys.stderr)
    finally:
        if not (shown and keep):
            stack.stop()
            plane.stop()
        if shown and not keep:
            shutil.rmtree(stack.directory, ignore_errors=True)
    return 0 if shown else 1


def _show(stack: Stack, *, keep: bool) -> None:
    TinyModel().write(stack.models / "stowage" / "tiny-llama")
    with stack.reporter.step("Starting Hub, nodes and operator", "10 s"):
        stack.start()
    stage = Stage(stack.cluster)
    for scene in scenes_on(stack):
        if not (keep and scene is deletion_scene):
            scene(stage, stack)


def _control_plane(reporter: Reporter, *, detached: bool) -> ControlPlane:
    module = GoModule.own()
    found = find(os.environ, module, lambda: build(module, os.environ, reporter))
    if isinstance(found, ExistingCluster):
        raise SystemExit("the demo starts a cluster of its own; unset USE_EXISTING_CLUSTER")
    return ControlPlane(default_directory(os.environ), found, detached=detached, reporter=reporter)


def _stack(plane: ControlPlane, reporter: Reporter, *, detached: bool) -> Stack:
    environment = os.environ.get("STOWAGE_VLLM_ENV")
    if not environment:
        raise SystemExit(
            "STOWAGE_VLLM_ENV is not set; run `make demo`, which installs vLLM's CPU build first"
        )
    directory = plane.directory.with_name("demo")
    # A detached run that was killed may have left some, whose cluster is gone since.
    ProcessesRecord(directory).end_all(reporter.say)
    shutil.rmtree(directory, ignore_errors=True)
    stack = Stack(
        plane,
        directory,
        inventories=(_INVENTORIES / "demo.yaml", _INVENTORIES / "cpu-local.yaml"),
        vllm_environment=Path(environment),
        reporter=reporter,
        detached=detached,
    )
    stack.on_start = ProcessesRecord(directory).add
    return stack


def _say_how_to_use(plane: ControlPlane) -> None:
    print("\nThe cluster stays up. In an ordinary shell:\n")
    print(shell_lines(plane.bin_directory, plane.cluster), end="")
    print(
        "kubectl get llmd\ncurl http://$(kubectl get svc tiny -o jsonpath='{.spec.clusterIP}'):8000/v1/models"
    )
    print("\nEnd it with: make down")


def _down(reporter: Reporter) -> int:
    directory = default_directory(os.environ)
    own = directory.with_name("demo")
    ended = ProcessesRecord(own).end_all(reporter.say)
    shutil.rmtree(own, ignore_errors=True)
    try:
        ControlPlane.attach(directory).stop()
    except StateError as error:
        if not ended:
            print(f"nothing to end: {error}", file=sys.stderr)
            return 1
    reporter.say("The cluster has ended; nothing is left.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
