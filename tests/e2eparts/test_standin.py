"""The stand-in engine starts, serves, measures, fails and ends as vLLM 0.32 does, and says what it is."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.hub import Fault, Hub

ROOT = Path(__file__).resolve().parents[2]
REAL_METRICS = ROOT / "tests/runtime/fixtures/vllm-0.32.0-cpu.metrics"
KV_BYTES = 64 << 20
OPTIONS = ["--kv-cache-memory-bytes", str(KV_BYTES), "--max-model-len", "1000", "--max-num-seqs", "2"]


@dataclass
class Engine:
    """A running stand-in: its process, its port and what it has printed so far."""

    process: subprocess.Popen[str]
    port: int
    lines: list[str] = field(default_factory=list)

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as response:
            text: str = response.read().decode()
        return text

    def post(self, path: str, body: dict) -> dict:
        data = json.dumps(body).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data=data, timeout=30) as response:
            answer: dict = json.loads(response.read())
        return answer

    def metrics(self) -> dict[str, float]:
        return {
            sample.name
            + "".join(f"|{v}" for k, v in sorted(sample.labels.items()) if k.endswith("reason")): sample.value
            for family in text_string_to_metric_families(self.get("/metrics"))
            for sample in family.samples
        }

    def wait_until_ready(self) -> None:
        eventually(lambda: "Application startup complete" in self.log or self.process.poll() is not None)
        assert self.process.poll() is None, self.log


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


Start = Callable[..., Engine]


@pytest.fixture
def start(tiny_model: Path, tmp_path: Path) -> Iterator[Start]:
    engines: list[tuple[Engine, threading.Thread]] = []

    def begin(
        *options: str,
        steering: dict | None = None,
        model: str = "",
        gpus_mib: tuple[int, ...] = (),
        **env: str,
    ) -> Engine:
        port = free_port()
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
        command += [
            "--port",
            str(port),
            "--model",
            model or str(tiny_model),
            "--served-model-name",
            "tiny",
            *options,
        ]
        (tmp_path / "bin").mkdir(exist_ok=True)
        if gpus_mib:
            smi = tmp_path / "bin" / "nvidia-smi"
            smi.write_text("#!/bin/sh\n" + "".join(f"echo {mib}\n" for mib in gpus_mib))
            smi.chmod(0o755)
        environment = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "e2e/standin"),
            "HF_HOME": str(tmp_path / "hf"),
            "STANDIN": json.dumps(steering or {}),
            **env,
        }
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        engine = Engine(process, port)
        assert process.stdout is not None
        reader = threading.Thread(target=engine.lines.extend, args=(process.stdout,))
        reader.start()
        engines.append((engine, reader))
        return engine

    yield begin
    for engine, reader in engines:
        engine.process.kill()
        engine.process.wait()
        reader.join()
        assert engine.process.stdout is not None
        engine.process.stdout.close()


def test_everything_it_says_names_it_a_stand_in(start: Start) -> None:
    engine = start(*OPTIONS)
    engine.wait_until_ready()
    assert "stand-in engine, not vLLM" in engine.lines[0]
    assert json.loads(engine.get("/version")) == {"version": "0.32.0", "engine": "simulated"}
    completion = engine.post("/v1/completions", {"model": "tiny", "prompt": "hello", "max_tokens": 40})
    chat = engine.post(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 40}
    )
    assert completion["engine"] == chat["engine"] == "simulated"
    assert "stand-in" in completion["choices"][0]["text"]
    assert "stand-in" in chat["choices"][0]["message"]["content"]
    assert completion["usage"] == {"prompt_tokens": 5, "completion_tokens": 40, "total_tokens": 45}


def test_capacity_is_counted_as_the_real_engine_counts_it(start: Start) -> None:
    engine = start(*OPTIONS)
    engine.wait_until_ready()
    blocks = KV_BYTES // (
        128 * 2 * 2 * 4 * 32 * 2
    )  # 2 layers, 4 KV heads of 32, 16 bit, blocks of 128 tokens
    tokens = blocks * 1000 // 8  # a request of 1,000 tokens takes 8 whole blocks
    assert (
        f"CPU KV cache size: {tokens:,} tokens, Maximum concurrency for 1,000 tokens per request"
        in engine.log
    )
    info = re.search(r"vllm:cache_config_info\{(.*)\}", engine.get("/metrics"))
    assert info is not None
    labels = dict(re.findall(r'(\w+)="([^"]*)"', info.group(1)))
    assert labels["block_size"] == "128"
    assert labels["num_gpu_blocks"] == str(blocks)
    assert labels["kv_cache_size_tokens"] == str(tokens)
    assert float(labels["kv_cache_max_concurrency"]) == blocks / 8


def test_metrics_are_a_part_of_what_the_real_engine_has(start: Start) -> None:
    engine = start(*OPTIONS)
    engine.wait_until_ready()
    engine.post("/v1/completions", {"prompt": "hello", "max_tokens": 3})

    def names(text: str) -> dict[str, str]:
        return {family.name: family.type for family in text_string_to_metric_families(text)}

    ours, real = names(engine.get("/metrics")), names(REAL_METRICS.read_text())
    assert {name: real.get(name) for name in ours} == ours
    values = engine.metrics()
    assert values["vllm:generation_tokens_total"] == 3
    assert values["vllm:time_to_first_token_seconds_count"] == 1
    assert values["vllm:request_success_total|length"] == 1


def test_start_up_lines_have_the_real_form(start: Start) -> None:
    engine = start(*OPTIONS)
    engine.wait_until_ready()
    real = (ROOT / "tests/runtime/fixtures/vllm-0.32.0-cpu.log").read_text()
    shape = re.compile(r"\) INFO \d\d-\d\d \d\d:\d\d:\d\d \[[\w.]+:\d+\] ([A-Za-z ]+)")
    ours = {match.group(1)[:20] for line in engine.lines if (match := shape.search(line))}
    missing = {text for text in ours if text.strip() and text not in real and not text.startswith("version")}
    assert missing == set()


def test_gpu_node_is_read_from_nvidia_smi(start: Start) -> None:
    steering = {"weight_bytes": 20 << 30}
    engine = start("--tensor-parallel-size", "2", steering=steering, gpus_mib=(81559, 81559))
    engine.wait_until_ready()
    assert "(Worker_TP1 " in engine.log
    assert "Model loading took 10.0 GiB memory" in engine.log
    assert re.search(r"Available KV cache memory: 61\.\d+ GiB", engine.log)
    assert "GPU KV cache size:" in engine.log


def test_more_ranks_than_gpus_are_refused(start: Start) -> None:
    engine = start("--tensor-parallel-size", "4", gpus_mib=(81559,))
    assert engine.process.wait(30) == 1
    eventually(lambda: "larger than the number of available GPUs" in engine.log)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        pytest.param(
            "--no-such-option", "unrecognized arguments: --no-such-option", id="an option vLLM does not have"
        ),
        pytest.param("--max-num-seqs=many", "invalid int value", id="a value of the wrong type"),
    ],
)
def test_bad_options_end_with_two(option: str, sentence: str, start: Start) -> None:
    engine = start(option)
    assert engine.process.wait(30) == 2
    eventually(lambda: sentence in engine.log)


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        pytest.param(
            "cuda_oom_load", 1, "torch.OutOfMemoryError: CUDA out of memory", id="out of memory on load"
        ),
        pytest.param(
            "cuda_oom_profile", 1, "torch.OutOfMemoryError: CUDA out of memory", id="or in profiling"
        ),
        pytest.param("kv_too_small", 1, "To serve at least one request", id="the KV cache is too small"),
        pytest.param(
            "no_kv", 1, "No available memory for the cache blocks", id="nothing left for the KV cache"
        ),
        pytest.param("free_memory", 1, "is less than desired GPU memory utilization", id="memory is taken"),
        pytest.param("exit", 7, "", id="it just exits"),
        pytest.param("exit_serving", 7, "fatal error", id="it exits while serving"),
    ],
)
def test_fault_ends_with_its_code_and_words(fault: str, code: int, sentence: str, start: Start) -> None:
    steering = {"fault": fault} | ({"exit_code": code} if code != 1 else {})
    engine = start(*OPTIONS, steering=steering)
    assert engine.process.wait(30) == code
    eventually(lambda: sentence in engine.log)
    assert ("Application startup complete" in engine.log) == (fault == "exit_serving")


def test_kv_cache_that_is_really_too_small_is_refused(start: Start) -> None:
    engine = start("--kv-cache-memory-bytes", str(1 << 20), "--max-model-len", "2000")
    assert engine.process.wait(30) == 1
    eventually(
        lambda: "the estimated maximum model length is 896." in engine.log
    )  # 8 blocks, one never given out


def test_hanging_start_can_be_ended(start: Start) -> None:
    engine = start(*OPTIONS, steering={"fault": "hang"})
    eventually(lambda: "Starting to load model" in engine.log)
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(30) == 0
    assert "Application startup complete" not in engine.log


def test_unhealthy_engine_says_so(start: Start) -> None:
    engine = start(*OPTIONS, steering={"fault": "unhealthy"})
    engine.wait_until_ready()
    with pytest.raises(urllib.error.HTTPError, match="503") as refusal:
        engine.get("/health")
    refusal.value.close()


def test_queue_forms_when_the_batch_is_full(start: Start) -> None:
    engine = start(*OPTIONS, steering={"ttft_seconds": 60})
    engine.wait_until_ready()
    threads = [
        threading.Thread(target=swallow, args=(engine, {"prompt": "x" * 200, "max_tokens": 5}))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: engine.metrics()["vllm:num_requests_waiting"] == 1)
    values = engine.metrics()
    assert values["vllm:num_requests_running"] == 2
    assert values["vllm:num_requests_waiting_by_reason|capacity"] == 1
    assert values["vllm:kv_cache_usage_perc"] == pytest.approx(4 / 511)
    engine.process.kill()
    for thread in threads:
        thread.join()


def swallow(engine: Engine, body: dict) -> dict | None:
    try:
        return engine.post("/v1/completions", body)
    except OSError:
        return None


def test_sigterm_with_time_finishes_the_running_request(start: Start) -> None:
    engine = start(*OPTIONS, "--shutdown-timeout", "60", steering={"ttft_seconds": 0.5})
    engine.wait_until_ready()
    answers: list[dict | None] = []
    body = {"prompt": "hello", "max_tokens": 5}
    thread = threading.Thread(target=lambda: answers.append(swallow(engine, body)))
    thread.start()
    eventually(lambda: engine.metrics()["vllm:num_requests_running"] == 1)
    engine.process.send_signal(signal.SIGTERM)
    eventually(lambda: "mode=drain timeout=60s" in engine.log)
    thread.join()
    assert answers[0] is not None
    assert answers[0]["usage"]["completion_tokens"] == 5
    assert engine.process.wait(30) == 0


def test_sigterm_without_time_leaves_the_client_hanging(start: Start) -> None:
    engine = start(*OPTIONS, steering={"ttft_seconds": 600})
    engine.wait_until_ready()
    with socket.create_connection(("127.0.0.1", engine.port)) as client:
        body = b'{"prompt": "hello", "max_tokens": 5}'
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        eventually(lambda: engine.metrics()["vllm:num_requests_running"] == 1)
        engine.process.send_signal(signal.SIGTERM)
        eventually(lambda: "mode=abort timeout=0s" in engine.log)
        with pytest.raises(subprocess.TimeoutExpired):
            engine.process.wait(0.5)
    assert engine.process.wait(30) == 0


def test_streamed_answer_ends_with_done(start: Start) -> None:
    engine = start(*OPTIONS)
    engine.wait_until_ready()
    body = json.dumps({"prompt": "hello", "max_tokens": 4, "stream": True}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{engine.port}/v1/completions", data=body) as response:
        events = [line.decode().removeprefix("data: ").strip() for line in response if line.strip()]
    assert events[-1] == "[DONE]"
    assert "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1]) == "stan"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param({"model": "other", "prompt": "x"}, 404, id="an unknown model is not found"),
        pytest.param({"prompt": "x", "max_tokens": 5000}, 400, id="more tokens than the context is refused"),
        pytest.param({"max_tokens": 5}, 400, id="a missing prompt is refused"),
    ],
)
def test_bad_requests_are_refused(body: dict, status: int, start: Start) -> None:
    engine = start(*OPTIONS)
    engine.wait_until_ready()
    with pytest.raises(urllib.error.HTTPError, match=str(status)) as refusal:
        engine.post("/v1/completions", body)
    assert json.loads(refusal.value.read())["engine"] == "simulated"
    refusal.value.close()


def test_model_comes_from_the_hub(start: Start, hub: Hub) -> None:
    engine = start(*OPTIONS, model="org/tiny", HF_ENDPOINT=hub.endpoint)
    engine.wait_until_ready()
    assert "Resolved architecture: LlamaForCausalLM" in engine.log


def test_gated_model_without_a_token_ends_the_start(start: Start, hub: Hub) -> None:
    hub.set_fault("org/tiny", Fault(kind="gated", tokens=("hf_good",)))
    engine = start(*OPTIONS, model="org/tiny", HF_ENDPOINT=hub.endpoint)
    assert engine.process.wait(30) == 1
    eventually(lambda: "401" in engine.log)


def test_its_distribution_is_named_vllm() -> None:
    code = "import importlib.metadata, vllm; print(importlib.metadata.version('vllm'), vllm.__version__)"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "e2e/standin")}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["0.32.0", "0.32.0"]


def test_tokens_and_their_log_probabilities_are_given_as_vllm_gives_them(start: Start) -> None:
    exact = start(*OPTIONS, steering={"lossy_nats": 0.5})
    lossy = start(*OPTIONS, "--kv-cache-dtype", "fp8", steering={"lossy_nats": 0.5})
    exact.wait_until_ready()
    lossy.wait_until_ready()
    assert exact.post("/tokenize", {"model": "tiny", "prompt": "hi"})["tokens"] == [104, 105]
    body = {"model": "tiny", "prompt": [104, 105, 106], "max_tokens": 1, "prompt_logprobs": 0}
    found = [
        engine.post("/v1/completions", {**body, "return_token_ids": True})["choices"][0]
        for engine in (exact, exact, lossy)
    ]
    assert [len(each["token_ids"]) for each in found] == [1, 1, 1]
    scores = [each["prompt_logprobs"] for each in found]
    assert scores[0] == scores[1]
    assert [list(entry) for entry in scores[0][1:]] == [["105"], ["106"]]
    assert scores[0][0] is None
    assert scores[2][1]["105"]["logprob"] < scores[0][1]["105"]["logprob"] < 0
