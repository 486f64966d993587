"""The real vLLM serves a tiny model from the local hub, and the stand-in agrees with it on every figure."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.hub import Hub
from e2e.standin.vllm.entrypoints.openai import capacity, checkpoint, machine, options, steering
from tools import bootstrap

KV_BYTES, MAX_MODEL_LEN = 64 << 20, 1000
OPTIONS = [
    "--kv-cache-memory-bytes",
    str(KV_BYTES),
    "--max-model-len",
    str(MAX_MODEL_LEN),
    "--max-num-seqs",
    "2",
]
READY_SECONDS = 400

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(READY_SECONDS + 100)]


@pytest.fixture
def address(hub: Hub, tmp_path: Path) -> Iterator[str]:
    environment = bootstrap.environments()["vllm"]
    if not environment.stamp.exists():
        pytest.skip("the environment of the real engine is not there: python3 -m tools.bootstrap vllm")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(environment.path / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server"]
    command += [
        "--model",
        "org/sharded",
        "--served-model-name",
        "tiny",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += [*OPTIONS, "--dtype", "bfloat16", "--enforce-eager", "--shutdown-timeout", "10"]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf")}
    env |= {"HF_ENDPOINT": hub.endpoint, "VLLM_NO_USAGE_STATS": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield wait_until_healthy(f"http://127.0.0.1:{port}", process, tmp_path / "log")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_healthy(address: str, process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return address
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-4000:])


def test_real_engine_serves_the_tiny_model_and_counts_as_the_stand_in_does(
    address: str, hub_root: Path
) -> None:
    body = json.dumps({"model": "tiny", "prompt": "grüß", "max_tokens": 4, "ignore_eos": True}).encode()
    request = urllib.request.Request(f"{address}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        usage = json.load(response)["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (6, 4)  # a token is a byte

    with urllib.request.urlopen(f"{address}/metrics", timeout=60) as response:
        info = re.search(r"vllm:cache_config_info\{(.*)\}", response.read().decode())
    assert info is not None
    labels = dict(re.findall(r'(\w+)="([^"]*)"', info.group(1)))
    arguments = options.parse(OPTIONS)
    ours = capacity.capacity_of(
        arguments,
        checkpoint.find(str(hub_root / "org/sharded"), None),
        machine.Machine(()),
        steering.Steering(),
    )
    assert int(labels["block_size"]) == ours.block_size
    assert int(labels["num_gpu_blocks"]) == ours.blocks
    assert int(labels["kv_cache_size_tokens"]) == ours.tokens
    assert float(labels["kv_cache_max_concurrency"]) == ours.concurrency
