"""The whole agent, as the zipapp that a pod runs, with a fake engine beside it."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stowage_runtime.contract import EngineExpectation, GpuExpectation, ModelRef

TOKEN = "hf_donottellanybody"
GIB = 1024**3

Start = Callable[..., Any]


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "record").read_text())
    return content


def pids(folder: Path) -> list[int]:
    return [record(folder)["pid"], int((folder / "record.helper").read_text())]


def test_it_serves_reports_and_drains(start_agent: Start, helpers: Any, tmp_path: Path) -> None:
    agent = start_agent()
    report = agent.wait_until_ready()
    assert report.phase == "Serving"
    assert report.launch_hash == agent.spec.content_hash()
    assert report.engine.kind == "simulated"
    assert report.engine.version == "0.32.0"

    measured = helpers.wait_for(lambda: (r := agent.report()) and r.utilization and r, "utilisation")
    assert measured.engine.kv_cache_tokens == 49152
    assert measured.engine.num_gpu_blocks == 3072
    assert measured.engine.weights_bytes == 2.5 * GIB
    assert measured.engine.kv_cache_bytes == 1.5 * GIB
    assert measured.engine.cuda_graph_bytes == 0.25 * GIB
    assert measured.utilization.kv_usage == 0.25
    assert measured.utilization.generation_tokens_total == 4

    assert agent.get("/livez")[0] == 200
    assert agent.get("/startupz") == (200, "Serving\n")
    assert agent.get("/nothing")[0] == 404

    left = pids(tmp_path)
    agent.process.send_signal(signal.SIGTERM)
    assert agent.end() == 0
    assert not (tmp_path / "termination-log").exists()
    assert [pid for pid in left if helpers.process_exists(pid)] == []
    assert "fake engine ended" in agent.output()


def test_the_engine_gets_what_the_plan_and_the_pod_say(start_agent: Start, tmp_path: Path) -> None:
    agent = start_agent(env={"HF_TOKEN": TOKEN}, env_of_plan={"VLLM_X": "1"})
    agent.wait_until_ready()
    found = record(tmp_path)
    assert found["argv"] == [
        *("--model", str(tmp_path / "model")),
        *("--served-model-name", "tiny"),
        *("--host", "127.0.0.1"),
        *("--port", str(agent.spec.port)),
        *("--max-model-len", "1024"),
    ]
    assert found["env"]["HF_HUB_OFFLINE"] == "1"
    assert found["env"]["VLLM_X"] == "1"
    assert "HF_TOKEN" not in found["env"]


def test_the_engine_s_lines_pass_through_unchanged(start_agent: Start) -> None:
    agent = start_agent()
    agent.wait_until_ready()
    first = agent.output().splitlines()[0]
    assert first == (
        "(EngineCore pid=77) INFO 11-22 10:00:00 [model_runner.py:425] "
        "Model loading took 2.5 GiB memory and 1.25 seconds"
    )


def test_running_requests_finish_before_the_end(start_agent: Start, helpers: Any) -> None:
    agent = start_agent()
    agent.wait_until_ready()
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(agent.ask({"user": "slow", "seconds": 3})))
    asking.start()
    helpers.wait_for(
        lambda: b'_running{engine="0",model_name="m"} 1.0' in helpers.metrics(agent), "a request"
    )
    agent.process.send_signal(signal.SIGTERM)
    helpers.wait_for(lambda: agent.get("/readyz")[0] == 503, "not ready any more")
    assert agent.get("/startupz")[0] == 200
    asking.join()
    assert answers == [200]
    assert agent.end() == 0


def test_an_engine_that_does_not_end_is_killed(start_agent: Start, helpers: Any, tmp_path: Path) -> None:
    agent = start_agent(env={"FAKE_MODE": "stubborn"}, drain_timeout_seconds=2)
    agent.wait_until_ready()
    left = pids(tmp_path)
    agent.process.send_signal(signal.SIGTERM)
    assert agent.end() == 0
    assert "vLLM was killed" in agent.errors()
    assert [pid for pid in left if helpers.process_exists(pid)] == []


def test_out_of_memory_reaches_the_termination_message(start_agent: Start) -> None:
    agent = start_agent(env={"FAKE_MODE": "oom"})
    assert agent.end() == 1
    found = agent.termination()
    assert found.reason == "CUDAOutOfMemory"
    assert found.message == (
        "GPU 0 ran out of memory while profiling the memory: 1.17 GiB were asked for, 512 MiB of 7.63 GiB were free."
    )
    assert found.details["requestedBytes"] == round(1.17 * GIB)


def test_a_crash_while_serving_is_explained(start_agent: Start, helpers: Any, tmp_path: Path) -> None:
    agent = start_agent()
    agent.wait_until_ready()
    left = pids(tmp_path)
    agent.ask({"user": "crash"})
    assert agent.end() == 1
    assert agent.termination().message == "vLLM exited with code 3 while serving: ValueError: told to crash."
    assert [pid for pid in left if helpers.process_exists(pid)] == []


def test_an_agent_that_is_killed_takes_the_engine_with_it(
    start_agent: Start, helpers: Any, tmp_path: Path
) -> None:
    agent = start_agent()
    agent.wait_until_ready()
    engine = record(tmp_path)["pid"]
    agent.process.kill()
    agent.end()
    helpers.wait_for(lambda: not helpers.process_exists(engine), "the engine's end")


def test_a_start_that_takes_too_long_ends(start_agent: Start, helpers: Any, tmp_path: Path) -> None:
    agent = start_agent(env={"FAKE_MODE": "hang"}, startup_timeout_seconds=10)
    assert agent.end() == 1
    found = agent.termination()
    assert found.reason == "StartupTimeout"
    assert "The start-up budget of 10 s ended while vLLM was loading; its last line: " in found.message
    assert "Model loading took" in found.message
    assert not helpers.process_exists(record(tmp_path)["pid"])


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        pytest.param("mute", "answered 500", id="server errors that stay"),
        pytest.param("refuse", "answered 404", id="a refusal"),
    ],
)
def test_an_engine_that_does_not_answer_is_not_ready(start_agent: Start, mode: str, words: str) -> None:
    agent = start_agent(env={"FAKE_MODE": mode})
    assert agent.end() == 1
    assert agent.termination().reason == "SelfTestFailed"
    assert words in agent.termination().message
    assert "serving" not in agent.errors()


def test_a_stop_during_the_start_is_a_success(start_agent: Start, helpers: Any, tmp_path: Path) -> None:
    agent = start_agent(env={"FAKE_MODE": "hang"})
    helpers.wait_for(lambda: (r := agent.report()) and r.phase == "Loading", "loading")
    assert agent.get("/readyz") == (503, "Loading\n")
    assert agent.get("/startupz")[0] == 503
    agent.process.send_signal(signal.SIGTERM)
    assert agent.end() == 0
    helpers.wait_for(
        lambda: not (tmp_path / "record").exists() or not helpers.process_exists(record(tmp_path)["pid"]),
        "the engine's end",
    )


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        pytest.param(
            {"engine": EngineExpectation("0.31.0", "CPU")},
            "EngineVersionMismatch",
            "has vLLM 0.32.0, the plan was made for 0.31.0",
            id="another engine version",
        ),
        pytest.param(
            {
                "engine": EngineExpectation("0.32.0", "GPU"),
                "gpus": GpuExpectation(2, "NVIDIA-L4", 23034 * 1024**2, "8.9"),
            },
            "DriverUnavailable",
            "no nvidia-smi in the container",
            id="no driver on a GPU node",
        ),
        pytest.param(
            {"model": ModelRef(kind="pvc", path="/nowhere")},
            "ModelNotFound",
            "There is no folder /nowhere",
            id="a volume without the model",
        ),
    ],
)
def test_a_mismatch_ends_before_the_engine_starts(
    start_agent: Start, tmp_path: Path, changes: dict[str, Any], reason: str, words: str
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    agent = start_agent(env={"PATH": str(bare)}, **changes)
    assert agent.end() == 1
    assert agent.termination().reason == reason
    assert words in agent.termination().message
    assert not (tmp_path / "record").exists()


def test_a_bad_launch_configuration_is_explained(start_agent: Start) -> None:
    agent = start_agent(startup_timeout_seconds=0)
    assert agent.end() == 1
    assert agent.termination().reason == "InvalidLaunchSpec"
    assert (
        "startupTimeoutSeconds is 0; it must be a whole number from 1 to 86400."
        in agent.termination().message
    )


def test_a_pod_without_its_address_is_explained(start_agent: Start) -> None:
    agent = start_agent(env={"POD_IP": ""})
    assert agent.end() == 1
    assert "POD_IP is not set" in agent.termination().message


def test_the_token_is_told_to_nobody(start_agent: Start) -> None:
    agent = start_agent(env={"HF_TOKEN": TOKEN, "FAKE_LEAK": TOKEN})
    agent.wait_until_ready()
    report = agent.get("/report")[1]
    agent.process.send_signal(signal.SIGTERM)
    assert agent.end() == 0
    assert "token in a line: [redacted]" in agent.output()
    assert TOKEN not in agent.output() + agent.errors() + report


def test_a_token_in_a_failure_is_told_to_nobody(start_agent: Start) -> None:
    agent = start_agent(env={"HF_TOKEN": TOKEN}, model=ModelRef(kind="pvc", path=f"/{TOKEN}"))
    assert agent.end() == 1
    text = (agent.folder / "termination-log").read_text()
    assert "[redacted]" in text
    assert TOKEN not in text + agent.errors()


def test_orphans_are_collected(start_agent: Start, helpers: Any, tmp_path: Path) -> None:
    agent = start_agent()
    agent.wait_until_ready()
    os.kill(pids(tmp_path)[1], signal.SIGKILL)
    agent.ask({"user": "orphan"})
    children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children")
    helpers.wait_for(lambda: children.read_text().split() == [str(record(tmp_path)["pid"])], "no zombie")
