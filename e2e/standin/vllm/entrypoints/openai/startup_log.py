"""The log lines of vLLM 0.32 that matter to who watches it start, in its format and order.

Why: the agent recognises progress and causes of failure by these lines. Texts and prefixes are those of the
real engine's logs: the CPU build prints other lines than the CUDA build.
It must never print a line that looks like a result of a model.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass

from .capacity import Capacity, gib
from .machine import Machine
from .options import non_default
from .steering import Steering

NOTICE = "stand-in engine, not vLLM: no model is loaded and nothing below is computed by one"


def say(process: str, source: str, text: str, level: str = "INFO") -> None:
    """Print one line as the process `process` of vLLM would."""
    stamp = time.strftime("%m-%d %H:%M:%S")
    print(f"({process} pid={os.getpid()}) {level} {stamp} [{source}] {text}", flush=True)


@dataclass(frozen=True, slots=True)
class StartupLog:
    """Prints the start of one engine step by step."""

    options: argparse.Namespace
    machine: Machine
    steering: Steering

    @property
    def ranks(self) -> int:
        """Worker processes that the real engine would have."""
        return int(self.options.tensor_parallel_size * self.options.pipeline_parallel_size)

    def begin(self, version: str) -> None:
        """Print what the API server says before the engine starts."""
        say("APIServer", "standin", NOTICE, "WARNING")
        say("APIServer", "api_utils.py:347", f"version {version}  model   {self.options.model}")
        say("APIServer", "api_utils.py:286", f"non-default args: {non_default(self.options)}")

    def architecture(self, name: str, max_model_len: int) -> None:
        """Print what the model's configuration was understood as."""
        say("APIServer", "model.py:733", f"Resolved architecture: {name}")
        say("APIServer", "model.py:2152", f"Using max model len {max_model_len}")

    def loading(self, version: str) -> None:
        """Print that the engine starts to load weights."""
        model = self.options.model
        say(
            "EngineCore",
            "core.py:133",
            f"Initializing a V1 LLM engine (v{version}) with config: model='{model}'",
        )
        source = "gpu_model_runner.py:5010" if self.machine.gpu_total_bytes else "cpu_model_runner.py:68"
        for rank in range(self.ranks):
            say(self._worker(rank), source, f"Starting to load model {model}...")

    def loaded(self, capacity: Capacity) -> None:
        """Print that the weights are there."""
        for rank in range(self.ranks):
            say(self._worker(rank), "default_loader.py:501", "Loading weights took 0.01 seconds")
            if self.machine.gpu_total_bytes:
                text = f"Model loading took {gib(capacity.weight_bytes)} GiB memory and 0.010000 seconds"
                say(self._worker(rank), "gpu_model_runner.py:5150", text)

    def sized(self, capacity: Capacity) -> None:
        """Print the KV cache, and the CUDA graphs where there are any."""
        if self.machine.gpu_total_bytes:
            text = f"Available KV cache memory: {gib(capacity.kv_bytes)} GiB"
            say(self._worker(0), "gpu_worker.py:760", text)
        else:
            text = (
                f"Explicitly set ({gib(capacity.kv_bytes)}/{gib(_host_bytes())}) GiB for KV cache on node 0."
            )
            say(self._worker(0), "cpu_worker.py:260", text)
        text = (
            f"{self.machine.device_name} KV cache size: {capacity.tokens:,} tokens, Maximum concurrency for "
            f"{capacity.max_model_len:,} tokens per request: {capacity.concurrency:.2f}x"
        )
        say("EngineCore", "kv_cache_utils.py:2327", text)
        if self.machine.gpu_total_bytes and not self.options.enforce_eager:
            graph_gib = self.steering.cuda_graph_bytes / (1 << 30)
            text = f"Graph capturing finished in 0 secs, took {graph_gib:.2f} GiB"
            say(self._worker(0), "gpu_model_runner.py:6582", text)
        if self.machine.gpu_total_bytes:
            say(self._worker(0), "gpu_worker.py:1013", self._summary(capacity))
        say("EngineCore", "core.py:402", "init engine (profile, create kv cache, warmup model) took 0.01 s")

    def serving(self, address: str) -> None:
        """Print that requests are answered from now on."""
        say("APIServer", "entry.py:140", f"Starting vLLM server on {address}")
        print("INFO:     Application startup complete.", flush=True)

    def _summary(self, capacity: Capacity) -> str:
        total, graphs = min(self.machine.gpu_total_bytes), self.steering.cuda_graph_bytes
        utilization = self.options.gpu_memory_utilization
        return (
            f"Free memory on device ({gib(total)}/{gib(total)} GiB) on startup. Desired GPU memory "
            f"utilization is ({utilization}, {gib(int(total * utilization))} GiB). Actual usage is "
            f"{gib(capacity.weight_bytes + self.steering.non_torch_bytes)} GiB for consumed memory "
            "(weights + non-torch), "
            f"{gib(self.steering.activation_bytes)} GiB for peak activation, and "
            f"{gib(0 if self.options.enforce_eager else graphs)} GiB for CUDAGraph memory."
        )

    def _worker(self, rank: int) -> str:
        return "Worker" if self.ranks == 1 else f"Worker_TP{rank}"


def _host_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
