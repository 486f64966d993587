"""The agent's command line: ``run`` starts an engine, ``inspect`` summarises a checkpoint, ``accuracy`` compares two.

Commands that begin with an underscore are the agent's own children. Everything that goes wrong before an
engine runs also ends in a termination message, with a reason from the documented table.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Callable, Sequence

from stowage_runtime.accuracy.command import check_accuracy
from stowage_runtime.agent import Agent, Surroundings
from stowage_runtime.agent_log import AgentLog
from stowage_runtime.contract import CheckpointSummary, ContractError, LaunchSpec
from stowage_runtime.engine_probe import probe_engine
from stowage_runtime.failures import AgentFailure, StopRequested
from stowage_runtime.fetch_child import fetch_once
from stowage_runtime.inspection import SummaryDesk, inspect_checkpoint, open_source
from stowage_runtime.processes import Processes, die_with_parent
from stowage_runtime.redaction import Redactor
from stowage_runtime.routes import run_routes
from stowage_runtime.server import ReportServer, Routes
from stowage_runtime.state import AgentState
from stowage_runtime.termination_log import DEFAULT_PATH, TerminationLog

DEFAULT_AGENT_PORT = 9400
_DEFAULT_TTL_SECONDS = 600.0
# The reader must have the whole answer before the server goes away.
_GOODBYE_SECONDS = 1.0
_EXEC_FAILED = 127


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.function
    return command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agent.pyz", description="Starts, watches and drains one vLLM engine."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="start the engine of a LaunchSpec and stay with it")
    run.add_argument("--spec", required=True, help="the LaunchSpec as a JSON file")
    run.set_defaults(function=_run)
    inspect = commands.add_parser(
        "inspect", help="summarise a checkpoint and serve the summary until it is read"
    )
    inspect.add_argument("--source", required=True, help="hf://org/name or an absolute path")
    inspect.add_argument("--revision", default="main", help="commit, tag or branch of a Hub repository")
    inspect.add_argument("--name", help="what the summary says as its source; default: --source")
    inspect.add_argument("--port", type=int, default=DEFAULT_AGENT_PORT)
    inspect.add_argument(
        "--ttl", type=float, default=_DEFAULT_TTL_SECONDS, help="seconds to wait for a reader"
    )
    inspect.set_defaults(function=_inspect)
    accuracy = commands.add_parser(
        "accuracy", help="compare a candidate with a baseline on prompts, and report the loss"
    )
    accuracy.add_argument("--spec", required=True, help="the AccuracyCheck as a JSON file")
    accuracy.set_defaults(function=lambda options: check_accuracy(options.spec, _surroundings(options)))
    for command in (run, inspect, accuracy):
        command.add_argument("--termination-log", default=DEFAULT_PATH)
    _add_own_children(commands)
    return parser


def _add_own_children(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    guarded = commands.add_parser("_exec")
    guarded.add_argument("--parent", type=int, required=True)
    guarded.add_argument("command", nargs=argparse.REMAINDER)
    guarded.set_defaults(function=_exec)
    probe = commands.add_parser("_probe-engine")
    probe.set_defaults(function=lambda _options: print(probe_engine()) or 0)
    fetch = commands.add_parser("_fetch")
    fetch.add_argument("--repo", required=True)
    fetch.add_argument("--revision", required=True)
    fetch.set_defaults(function=lambda options: fetch_once(options.repo, options.revision))


def _exec(options: argparse.Namespace) -> int:
    die_with_parent(options.parent)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    try:
        os.execvp(command[0], command)  # noqa: S606 - replacing this process is the point
    except OSError as error:
        print(f"{command[0]} cannot be run: {error}", file=sys.stderr)
    return _EXEC_FAILED


def _surroundings(options: argparse.Namespace) -> Surroundings:
    environment = dict(os.environ)
    redact = Redactor.of_environment(environment)
    log = AgentLog(redact)
    processes = Processes()
    processes.install()
    termination = TerminationLog(options.termination_log, redact, log)
    return Surroundings(environment, environment.get("POD_IP", ""), processes, redact, log, termination)


def _serve(around: Surroundings, port: int, routes: Routes) -> ReportServer:
    if not around.host:
        raise AgentFailure("InvalidLaunchSpec", "POD_IP is not set; the pod must set it from status.podIP.")
    try:
        return ReportServer(around.host, port, routes)
    except OSError as error:
        message = f"The agent cannot listen on {around.host} port {port}: {error}."
        raise AgentFailure("InvalidLaunchSpec", message) from None


def _run(options: argparse.Namespace) -> int:
    around = _surroundings(options)
    try:
        spec, digest = _read_spec(options.spec)
        state = AgentState(digest)
        server = _serve(around, spec.agent_port, run_routes(state, around.processes))
    except AgentFailure as failure:
        around.termination.write(failure.termination)
        return 1
    around.log(f"starting {spec.namespace}/{spec.name} with launch configuration {digest[:10]}")
    try:
        return Agent(spec, state, around).run()
    finally:
        server.close()


def _read_spec(path: str) -> tuple[LaunchSpec, str]:
    try:
        with open(path, "rb") as file:
            content = file.read()
        return LaunchSpec.from_json(content), hashlib.sha256(content).hexdigest()
    except OSError as error:
        raise AgentFailure("InvalidLaunchSpec", f"{path} cannot be read: {error}.") from None
    except ContractError as error:
        raise AgentFailure("InvalidLaunchSpec", f"{path} is no LaunchSpec: {error}") from None


def _inspect(options: argparse.Namespace) -> int:
    around = _surroundings(options)
    desk = SummaryDesk()
    try:
        server = _serve(around, options.port, desk.routes())
        around.log(f"inspecting {options.source}")
        desk.put(around.processes.call(lambda: _summary(options, around)))
        around.log(f"the summary can be read for {options.ttl:.0f} s")
        deadline = time.monotonic() + options.ttl
        while not desk.taken.is_set() and time.monotonic() < deadline:
            around.processes.pause(min(0.2, max(0.0, deadline - time.monotonic())))
        around.processes.pause(_GOODBYE_SECONDS)
        server.close()
    except AgentFailure as failure:
        around.termination.write(failure.termination)
        return 1
    except StopRequested:
        around.log("asked to stop")
    return 0


def _summary(options: argparse.Namespace, around: Surroundings) -> CheckpointSummary:
    source = open_source(options.source, options.revision, around.environment)
    return inspect_checkpoint(source, options.name or options.source)
