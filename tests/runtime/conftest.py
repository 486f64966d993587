"""Fixtures of the runtime's tests: the zipapp, a fake engine on PYTHONPATH, an agent that is always cleaned up."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from stowage_runtime.contract import EngineExpectation, LaunchSpec, ModelRef, RuntimeReport, Termination
from tools.build_agent import build_agent

# A loaded machine is slow, not wrong.
settings.register_profile("runtime", deadline=None)
settings.load_profile("runtime")

HOST = "127.0.0.1"
WAIT_SECONDS = 60.0


def _load(name: str) -> Any:
    # Test folders are no packages: a sibling is loaded by its path.
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"runtime_tests_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


write_fake_engine: Callable[..., Path] = _load("fake_engine").write_fake_engine


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Wait until the condition holds; fails with what was waited for."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {WAIT_SECONDS} s for {what}")


def process_exists(pid: int) -> bool:
    """Tell whether a process is there and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@dataclasses.dataclass
class RunningAgent:
    """An agent as a process of its own, and where it leaves things."""

    process: subprocess.Popen[bytes]
    spec: LaunchSpec
    folder: Path

    def get(self, path: str) -> tuple[int, str]:
        """Ask the agent; (0, "") when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.spec.agent_port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def report(self) -> RuntimeReport | None:
        """Return the report, if the agent answers."""
        status, body = self.get("/report")
        return RuntimeReport.from_json(body) if status == 200 else None

    def wait_until_ready(self) -> RuntimeReport:
        """Wait for readiness; fails early when the agent has ended."""

        def ready() -> bool:
            assert self.process.poll() is None, self.errors()
            return self.get("/readyz")[0] == 200

        wait_for(ready, "the agent to be ready")
        report = wait_for(self.report, "a report")
        assert isinstance(report, RuntimeReport)
        return report

    def ask(self, body: dict[str, Any]) -> int:
        """Send a completion to the engine; returns the status, 0 when it went away."""
        data = json.dumps({"model": self.spec.served_model_name, **body}).encode()
        request = urllib.request.Request(
            f"http://{HOST}:{self.spec.port}/v1/completions", data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status: int = answer.status
                return status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    def end(self) -> int:
        """Wait for the agent's end; returns its exit code."""
        return self.process.wait(timeout=WAIT_SECONDS)

    def errors(self) -> str:
        """Return the agent's own log."""
        return (self.folder / "stderr").read_text()

    def output(self) -> str:
        """Return what the engine printed."""
        return (self.folder / "stdout").read_text()

    def termination(self) -> Termination:
        """Return the termination message."""
        return Termination.from_json((self.folder / "termination-log").read_text())


@pytest.fixture(scope="session")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("agent") / "agent.pyz"
    build_agent(target)
    return target


class Helpers:
    """Functions that tests of a running agent share."""

    wait_for = staticmethod(wait_for)
    process_exists = staticmethod(process_exists)
    free_port = staticmethod(free_port)

    @staticmethod
    def metrics(agent: RunningAgent) -> bytes:
        """Scrape the engine itself."""
        with urllib.request.urlopen(f"http://{HOST}:{agent.spec.port}/metrics", timeout=10) as answer:
            content: bytes = answer.read()
            return content


@pytest.fixture
def helpers() -> Helpers:
    return Helpers()


@pytest.fixture
def fake_engine() -> Callable[..., Path]:
    return write_fake_engine


@pytest.fixture
def start_agent(zipapp: Path, tmp_path: Path) -> Iterator[Callable[..., RunningAgent]]:
    """Return a function that starts an agent with a fake engine; all of it is gone afterwards."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    site = write_fake_engine(tmp_path / "site")
    started: list[RunningAgent] = []

    def start(
        env: dict[str, str] | None = None, env_of_plan: dict[str, str] | None = None, **changes: Any
    ) -> RunningAgent:
        spec = LaunchSpec(
            namespace="default",
            name="tiny",
            served_model_name="tiny",
            model=ModelRef(kind="pvc", path=str(model)),
            engine=EngineExpectation(version="0.32.0", hardware="CPU"),
            args=("--max-model-len", "1024"),
            env=env_of_plan or {},
            startup_timeout_seconds=120,
            drain_timeout_seconds=30,
            port=free_port(),
            agent_port=free_port(),
        )
        spec = dataclasses.replace(spec, **changes)
        (tmp_path / "launch.json").write_text(spec.to_json())
        command = [sys.executable, str(zipapp), "run", "--spec", str(tmp_path / "launch.json")]
        command += ["--termination-log", str(tmp_path / "termination-log")]
        environment = {
            **os.environ,
            "PYTHONPATH": str(site),
            "POD_IP": HOST,
            "FAKE_RECORD": str(tmp_path / "record"),
            **(env or {}),
        }
        with open(tmp_path / "stdout", "wb") as out, open(tmp_path / "stderr", "wb") as err:
            process = subprocess.Popen(command, env=environment, stdout=out, stderr=err, cwd=tmp_path)
        started.append(RunningAgent(process, spec, tmp_path))
        return started[-1]

    yield start
    for agent in started:
        if agent.process.poll() is None:
            agent.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                agent.process.wait(timeout=WAIT_SECONDS)
        if agent.process.poll() is None:
            agent.process.kill()
            agent.process.wait()
