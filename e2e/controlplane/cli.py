"""The command line: `python -m e2e.controlplane build | up | down | env | status | kubectl | exec`.

Results go to stdout, so that `eval "$(python -m e2e.controlplane env)"` works; progress goes to stderr. It
ends with 2 and one sentence on every failure that a user can do something about.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from e2e.controlplane.binaries import Binaries, BinariesMissing, ExistingCluster, find
from e2e.controlplane.build import BuildError, build
from e2e.controlplane.cluster import Cluster
from e2e.controlplane.components import Options
from e2e.controlplane.control_plane import ControlPlane, ControlPlaneError
from e2e.controlplane.existing import existing_cluster
from e2e.controlplane.go_module import GoModule
from e2e.controlplane.go_toolchain import ToolchainError
from e2e.controlplane.namespace import NamespaceError
from e2e.controlplane.ports import NoFreePort
from e2e.controlplane.progress import Reporter
from e2e.controlplane.state import State, StateError, default_directory
from e2e.controlplane.wrappers import shell_lines

_EXPECTED = (
    BinariesMissing,
    BuildError,
    ControlPlaneError,
    NamespaceError,
    NoFreePort,
    StateError,
    ToolchainError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, or 2 for a failure that was explained."""
    options = _parser().parse_args(arguments)
    options.state_dir = (options.state_dir or default_directory(os.environ)).absolute()
    signal.signal(signal.SIGTERM, _terminated)
    # A shell starts its background jobs with SIGINT ignored, and Python would keep it so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return int(_COMMANDS[options.command](options))
    except _EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.controlplane", description=__doc__)
    parser.add_argument("--state-dir", type=Path, help="default: $XDG_STATE_HOME/stowage/controlplane")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the binary into the cache, and say where it is")
    up = commands.add_parser("up", help="start a control plane that stays until `down`")
    up.add_argument("--node-monitor-grace-period", metavar="24h", help="for many nodes that renew no Lease")
    commands.add_parser("down", help="end it with everything that runs in its network, and remove its data")
    commands.add_parser("env", help="print the lines by which an ordinary shell uses it")
    commands.add_parser("status", help="say what runs; ends with 1 if something is dead")
    for name, text in (
        ("kubectl", "run kubectl as the administrator"),
        ("exec", "run a command in its network"),
    ):
        command = commands.add_parser(name, help=text, add_help=False)
        command.add_argument("words", nargs=argparse.REMAINDER)
    return parser


def _build(_: argparse.Namespace) -> int:
    print(build(GoModule.own(), os.environ, Reporter()))
    return 0


def _up(options: argparse.Namespace) -> int:
    reporter, module = Reporter(), GoModule.own()
    found = find(os.environ, module, lambda: build(module, os.environ, reporter))
    if isinstance(found, ExistingCluster):
        reporter.say(f"USE_EXISTING_CLUSTER=true: nothing to start, using {found.kubeconfig}")
        return 0
    chosen = Options(node_monitor_grace_period=options.node_monitor_grace_period)
    plane = ControlPlane(options.state_dir, found, options=chosen, detached=True, reporter=reporter)
    plane.start()
    reporter.say(f"{plane.server} is up. In an ordinary shell:")
    print(shell_lines(plane.bin_directory, plane.cluster), end="")
    return 0


def _down(options: argparse.Namespace) -> int:
    reporter = Reporter()
    if State.load(options.state_dir) is None:
        reporter.say(f"{options.state_dir}: no control plane is up here")
        return 0
    with reporter.step("Stopping the control plane", "1-5 s"):
        ControlPlane.attach(options.state_dir).stop()
    return 0


def _env(options: argparse.Namespace) -> int:
    plane = ControlPlane.attach(options.state_dir)
    print(shell_lines(plane.bin_directory, plane.cluster), end="")
    return 0


def _status(options: argparse.Namespace) -> int:
    plane = ControlPlane.attach(options.state_dir)
    dead = plane.dead_components()
    print(f"{plane.server}\nnetwork: {plane.namespace.describe()}")
    for name, process in plane.state.processes.items():
        print(f"{name}: {'dead' if name in dead else f'running, pid {process.pid}'}")
    return 1 if dead else 0


def _kubectl(options: argparse.Namespace) -> NoReturn:
    cluster = _cluster(options.state_dir)
    os.execvpe(cluster.kubectl_command[0], [*cluster.kubectl_command, *options.words], cluster.environment)


def _exec(options: argparse.Namespace) -> NoReturn:
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        raise StateError("exec: name a command to run")
    cluster = _cluster(options.state_dir)
    command = cluster.namespace.wrap(words)
    os.execvpe(command[0], command, cluster.environment)


def _cluster(directory: Path) -> Cluster:
    if os.environ.get("USE_EXISTING_CLUSTER", "").lower() == "true":
        found = find(os.environ, GoModule.own(), None)
        if isinstance(found, Binaries):
            raise StateError("USE_EXISTING_CLUSTER=true did not lead to a cluster")
        return existing_cluster(found)
    return ControlPlane.attach(directory).cluster


def _terminated(number: int, _: object) -> NoReturn:
    """End by an exception, so that what was half started is ended too."""
    raise SystemExit(128 + number)


_COMMANDS = {
    "build": _build,
    "up": _up,
    "down": _down,
    "env": _env,
    "status": _status,
    "kubectl": _kubectl,
    "exec": _exec,
}
