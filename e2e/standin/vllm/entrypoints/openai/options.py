"""The command-line options of vLLM 0.32 that the stand-in knows.

Why: an option that vLLM does not have must fail here as it would there, with argparse's exit code 2.
Source of names: `vllm/engine/arg_utils.py` and the server's own options in vLLM 0.32.0.
It must never accept an option that vLLM would refuse.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

_INTEGERS = {
    "port": 8000,
    "seed": 0,
    "tensor-parallel-size": 1,
    "pipeline-parallel-size": 1,
    "data-parallel-size": 1,
    "max-num-seqs": 256,
    "max-num-batched-tokens": None,
    "kv-cache-memory-bytes": None,
    "num-gpu-blocks-override": None,
    "block-size": None,
    "shutdown-timeout": 0,
    "max-num-queued-reqs": None,
    "max-num-queued-tokens": None,
    "max-loras": 1,
    "max-lora-rank": 16,
    "max-cudagraph-capture-size": None,
}
_FLOATS = {"gpu-memory-utilization": 0.92, "cpu-offload-gb": 0.0, "kv-offloading-size": None}
_TEXTS = {
    "host": None,
    "tokenizer": None,
    "revision": None,
    "tokenizer-revision": None,
    "code-revision": None,
    "hf-token": None,
    "dtype": "auto",
    "quantization": None,
    "load-format": "auto",
    "download-dir": None,
    "kv-cache-dtype": "auto",
    "max-model-len": None,
    "distributed-executor-backend": None,
    "attention-backend": None,
    "generation-config": "auto",
    "hf-overrides": None,
    "compilation-config": None,
    "speculative-config": None,
    "safetensors-load-strategy": None,
    "chat-template": None,
    "tool-call-parser": None,
    "reasoning-parser": None,
    "uvicorn-log-level": "info",
    "log-level": None,
    "api-key": None,
    "scheduling-policy": "fcfs",
    "performance-mode": None,
    "optimization-level": None,
    "cudagraph-capture-sizes": None,
    "device-ids": None,
}
_SWITCHES = (
    "enforce-eager",
    "enable-mfu-metrics",
    "trust-remote-code",
    "disable-log-stats",
    "disable-custom-all-reduce",
    "disable-uvicorn-access-log",
    "enable-auto-tool-choice",
    "enable-lora",
)
_TWO_WAY = (
    "enable-prefix-caching",
    "enable-chunked-prefill",
    "enable-expert-parallel",
    "enable-log-requests",
    "async-scheduling",
    "enable-sleep-mode",
)
_SHORT = {
    "tensor-parallel-size": "-tp",
    "pipeline-parallel-size": "-pp",
    "data-parallel-size": "-dp",
    "quantization": "-q",
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line as vLLM does (underscores count as dashes); exits with 2 on an unknown option."""
    parser = argparse.ArgumentParser(prog="api_server.py", allow_abbrev=False)
    parser.add_argument("--model", default="Qwen/Qwen3-0.6B")
    parser.add_argument("--served-model-name", nargs="+", default=None)
    for kind, defaults in ((int, _INTEGERS), (float, _FLOATS), (str, _TEXTS)):
        for name, default in defaults.items():
            names = [f"--{name}", *([_SHORT[name]] if name in _SHORT else [])]
            parser.add_argument(*names, type=kind, default=default)
    for name in _SWITCHES:
        parser.add_argument(f"--{name}", action="store_true")
    for name in _TWO_WAY:
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=None)
    return parser.parse_args([_with_dashes(argument) for argument in arguments])


def non_default(options: argparse.Namespace) -> dict[str, object]:
    """Return the options that differ from their defaults, as vLLM logs them."""
    defaults = vars(parse([]))
    return {name: value for name, value in vars(options).items() if value != defaults[name]}


def _with_dashes(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, separator, value = argument.partition("=")
    return "--" + name[2:].replace("_", "-") + separator + value
