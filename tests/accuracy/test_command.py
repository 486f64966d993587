"""The agent's command `accuracy` as a process, on the stand-in engine: report, reasons, and nothing left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.tinymodel import TinyModel
from stowage_runtime.contract import (
    AccuracyCheck,
    AccuracyReport,
    EngineExpectation,
    LaunchSpec,
    ModelRef,
    Termination,
)
from tools.build_agent import build_agent

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
SMALL = {"hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 64}
PROMPTS = "".join(json.dumps({"prompt": f"Question {number}?"}) + "\n" for number in range(12))


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind((HOST, 0))
        other.bind((HOST, 0))
        return one.getsockname()[1], other.getsockname()[1]


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a check of a model with so much loss (nats per token)."""
    build_agent(tmp_path / "agent.pyz")
    (tmp_path / "prompts").mkdir()

    def launch(name: str, steering: dict[str, object]) -> LaunchSpec:
        folder = tmp_path / name
        TinyModel(extra_config={"standin": steering}, **SMALL).write(folder)  # type: ignore[arg-type]
        port, agent_port = free_ports()
        return LaunchSpec(
            namespace="default",
            name=name,
            served_model_name="tiny",
            model=ModelRef(kind="pvc", path=str(folder)),
            engine=EngineExpectation(version="0.32.0", hardware="CPU"),
            args=("--kv-cache-memory-bytes", str(16 << 20), "--max-model-len", "256"),
            env={},
            startup_timeout_seconds=120,
            drain_timeout_seconds=10,
            port=port,
            agent_port=agent_port,
        )

    def start(
        prompts: str = PROMPTS, *, baseline: bool = True, host: str = HOST, **steering: object
    ) -> subprocess.Popen[str]:
        (tmp_path / "prompts" / "prompts.jsonl").write_text(prompts)
        check = AccuracyCheck(
            check_id="ab" * 20,
            candidate=launch("candidate", steering),
            baseline=launch("baseline", {}) if baseline else None,
            prompts_path=str(tmp_path / "prompts"),
            answer_tokens=8,
        )
        (tmp_path / "check.json").write_text(check.to_json())
        command = [sys.executable, str(tmp_path / "agent.pyz"), "accuracy"]
        command += ["--spec", str(tmp_path / "check.json"), "--termination-log", str(tmp_path / "end")]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "e2e/standin"), "POD_IP": host}
        return subprocess.Popen(
            command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path
        )

    return start


def end(process: subprocess.Popen[str], code: int) -> str:
    output, _ = process.communicate(timeout=200)
    assert process.returncode == code, output[-3000:]
    return output


def test_a_lossy_candidate_is_measured_and_reported_in_the_termination_message(
    start: Start, tmp_path: Path
) -> None:
    output = end(start(loss_nats=0.05), 0)
    line = (tmp_path / "end").read_text()
    assert len(line) <= 4096
    report = AccuracyReport.from_json(line)
    assert (report.check_id, report.prompts, report.engine_kind) == ("ab" * 20, 12, "simulated")
    assert report.likelihood is not None
    assert 0.02 < report.likelihood.drop < 0.08
    assert report.likelihood.noise == 0.0
    assert report.answers is None
    assert output.count("vLLM has ended") == 2


def test_bad_prompts_are_told_before_any_engine_is_started(start: Start, tmp_path: Path) -> None:
    output = end(start("{}"), 1)
    assert Termination.from_json((tmp_path / "end").read_text()).reason == "InvalidPrompts"
    assert "starting the" not in output


def test_without_a_baseline_prompts_need_answers(start: Start, tmp_path: Path) -> None:
    end(start(baseline=False), 1)
    found = Termination.from_json((tmp_path / "end").read_text())
    assert found.reason == "InvalidPrompts"
    assert "neither `expected` nor `recorded`" in found.message


def test_recorded_answers_stand_for_a_baseline(start: Start, tmp_path: Path) -> None:
    recorded = "".join(json.dumps({"prompt": f"q{n}", "expected": "no such answer"}) + "\n" for n in range(3))
    end(start(recorded, baseline=False), 0)
    report = AccuracyReport.from_json((tmp_path / "end").read_text())
    assert report.likelihood is None
    assert report.answers is not None
    assert report.answers.lost == 3


def test_an_engine_that_fails_leaves_its_own_reason(start: Start, tmp_path: Path) -> None:
    end(start(fault="exit"), 1)
    found = Termination.from_json((tmp_path / "end").read_text())
    assert found.reason == "EngineExited"
    assert found.message.startswith("The candidate of the accuracy check: ")


def test_an_engine_that_refuses_to_answer_fails_the_check(start: Start, tmp_path: Path) -> None:
    end(start(fault="refuse"), 1)
    assert Termination.from_json((tmp_path / "end").read_text()).reason == "SelfTestFailed"


def test_a_check_that_is_stopped_leaves_no_engine_and_no_report(start: Start, tmp_path: Path) -> None:
    process = start(fault="hang")
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    assert any("starting the candidate" in line for line in lines)
    assert any("api_server" in line for line in lines)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    end(process, 143)
    assert not (tmp_path / "end").exists()
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path / "candidate") not in listed


def test_a_pod_without_an_address_is_refused(start: Start, tmp_path: Path) -> None:
    end(start(host=""), 1)
    assert Termination.from_json((tmp_path / "end").read_text()).reason == "InvalidLaunchSpec"


def test_a_report_with_long_notes_still_fits(tmp_path: Path) -> None:
    report = AccuracyReport("ab" * 4, "Said.", 1, "0" * 64, 0.95, "vllm")
    long = dataclasses.replace(report, notes=("x" * 400,) * 20)
    assert AccuracyReport.from_json(long.to_line()) == report
