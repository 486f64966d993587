"""Real vLLM on a tiny model: an identical copy passes, and growing noise on the weights fails in order.

The engine is started once, by the agent; its weights are exchanged in place between the candidates, which takes
milliseconds where a start takes a minute. Everything else is what runs in the pod of a check.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.tinymodel import TinyModel
from stowage.api.v1alpha1 import AccuracyVerdict
from stowage.engine.accuracy.verdict import judge
from stowage_runtime.accuracy.bounds import CONFIDENCE
from stowage_runtime.accuracy.measurement import BaselineRuns, Measured, run_baseline, run_candidate
from stowage_runtime.accuracy.prompts import Prompt
from stowage_runtime.accuracy.scorer import Scorer
from stowage_runtime.contract import AccuracyReport, EngineExpectation, LaunchSpec, ModelRef
from stowage_runtime.engine_client import EngineClient
from tools.build_agent import build_agent

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        "STOWAGE_VLLM_ENV" not in os.environ,
        reason="STOWAGE_VLLM_ENV names no environment of vLLM: `make test` makes one and sets it",
    ),
]

HOST, READY_SECONDS = "127.0.0.1", 400
NOISE_PERMILLE = (10, 60, 150, 400)
PROMPTS = tuple(Prompt(line, f"Question {line}: {line} + {3 * line} =", None) for line in range(1, 25))
ANSWER_TOKENS = 16
OPTIONS = (
    *("--kv-cache-memory-bytes", str(32 << 20), "--max-model-len", "256", "--max-num-seqs", "2"),
    *("--dtype", "bfloat16", "--enforce-eager", "--no-enable-prefix-caching"),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    TinyModel().write(folder / "exact")
    TinyModel().write(folder / "copy")
    for permille in NOISE_PERMILLE:
        TinyModel(noise_permille=permille).write(folder / f"noise-{permille}")
    return folder


@pytest.fixture(scope="module")
def engine(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The agent with the real engine; gives the engine's address."""
    folder = tmp_path_factory.mktemp("agent")
    build_agent(folder / "agent.pyz")
    with socket.socket() as one, socket.socket() as other:
        one.bind((HOST, 0))
        other.bind((HOST, 0))
        port, agent_port = one.getsockname()[1], other.getsockname()[1]
    spec = LaunchSpec(
        namespace="default",
        name="tiny",
        served_model_name="tiny",
        model=ModelRef(kind="pvc", path=str(models / "exact")),
        engine=EngineExpectation(version="0.32.0", hardware="CPU"),
        args=OPTIONS,
        env={"VLLM_SERVER_DEV_MODE": "1"},
        startup_timeout_seconds=READY_SECONDS,
        drain_timeout_seconds=10,
        port=port,
        agent_port=agent_port,
    )
    (folder / "launch.json").write_text(spec.to_json())
    binaries = f"{os.environ['STOWAGE_VLLM_ENV']}/bin"
    command = [f"{binaries}/python3", str(folder / "agent.pyz"), "run", "--spec", str(folder / "launch.json")]
    env = {"PATH": f"{binaries}:{os.environ['PATH']}", "HOME": str(folder), "POD_IP": HOST}
    env |= {"GLOO_SOCKET_IFNAME": "lo"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--termination-log", str(folder / "end")], env=env, stdout=log, stderr=log
        )
    try:
        wait_until_ready(f"http://{HOST}:{agent_port}/readyz", process, folder / "log")
        yield f"{HOST}:{port}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-4000:])


def exchange_weights(engine: str, folder: Path) -> None:
    body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
    request = urllib.request.Request(
        f"http://{engine}/collective_rpc", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


def verdict(found: Measured) -> AccuracyVerdict:
    report = AccuracyReport(
        "ab" * 20, "Measured.", len(PROMPTS), "0" * 64, CONFIDENCE, "vllm", found.answers, found.likelihood
    )
    return judge(report, 0.01).verdict


def test_an_identical_copy_passes_and_graded_perturbations_fail_in_order(engine: str, models: Path) -> None:
    host, _, port = engine.partition(":")
    scorer = Scorer(EngineClient(host, int(port)), "tiny", 2)

    def measured(name: str, baseline: BaselineRuns) -> Measured:
        exchange_weights(engine, models / name)
        return run_candidate(scorer, PROMPTS, ANSWER_TOKENS, baseline)

    runs = run_baseline(scorer, PROMPTS, ANSWER_TOKENS)
    copy = measured("copy", runs)
    perturbed = [measured(f"noise-{permille}", runs) for permille in NOISE_PERMILLE]
    again = measured("exact", runs)

    assert copy.likelihood is not None
    assert copy.likelihood.noise is not None
    assert copy.likelihood.tokens > 10 * len(PROMPTS)
    floor = copy.likelihood.noise
    assert floor < 0.01
    assert abs(copy.likelihood.drop) <= floor + 1e-6
    assert verdict(copy) is verdict(again) is AccuracyVerdict.PASS

    figures = [each.likelihood for each in perturbed if each.likelihood is not None]
    drops = [each.drop for each in figures]
    print([f"{permille / 10:g} %: {drop:.4f}" for permille, drop in zip(NOISE_PERMILLE, drops, strict=True)])
    assert drops == sorted(drops)
    shown = [each.drop_low is not None and each.drop_low > floor for each in figures]
    # Noise of 1 % of the weights' spread is about what bfloat16 rounds away: it is not told from nothing.
    assert shown[1:] == [True] * 3
    assert verdict(perturbed[0]) is not AccuracyVerdict.FAIL
    assert [verdict(each) for each in perturbed[1:]] == [AccuracyVerdict.FAIL] * 3
