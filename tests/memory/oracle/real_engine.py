"""What the real engine holds and reports after it has started: bytes of the loaded model, blocks, tokens, concurrency.

Run in an environment with vLLM's CPU build, never in the project's own; it imports nothing from this project:

    python real_engine.py CASES.json

CASES.json is a list of {"name", "config", "arguments"}: a config.json and what `vllm.LLM` is called with. Every
case starts an engine inside this process, one after the other, so that imports are paid once; weights are not read
but made up, of the same shapes. Bytes are counted when the model is loaded, before the CPU's own kernels repack
it. One line of JSON is printed for each case as soon as it is known.
"""

# mypy: ignore-errors
from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

from vllm import LLM, __version__
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.model_executor.model_loader import base_loader

_LOADED: list[dict] = []


def started(config: dict, arguments: dict) -> dict:
    """Start an engine, ask it, and end it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        llm = LLM(
            model=folder,
            load_format="dummy",
            skip_tokenizer_init=True,
            enforce_eager=True,
            seed=0,
            **arguments,
        )
        cache = llm.llm_engine.vllm_config.cache_config
        answer = {
            **_LOADED.pop(),
            "block_size": cache.block_size,
            "num_blocks": cache.num_gpu_blocks,
            "kv_tokens": cache.kv_cache_size_tokens,
            "max_concurrency": float(cache.kv_cache_max_concurrency),
        }
        llm.llm_engine.engine_core.shutdown()
        del llm
    gc.collect()
    cleanup_dist_env_and_memory()
    return answer


def held(model) -> dict:
    """Give the tensors of the loaded model, each storage once."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    owners = {tensor.untyped_storage()._cdata: tensor for tensor in reversed(named.values())}
    own = [tensor for tensor in named.values() if owners[tensor.untyped_storage()._cdata] is tensor]
    return {"tensors": len(own), "bytes": sum(tensor.numel() * tensor.element_size() for tensor in own)}


def count_before_repacking() -> None:
    """Have the loader count the model between reading its weights and what kernels then make of them."""
    repack = base_loader.process_weights_after_loading

    def count(model, *args, **kwargs):
        _LOADED.append(held(model))
        return repack(model, *args, **kwargs)

    base_loader.process_weights_after_loading = count


def main() -> None:
    count_before_repacking()
    for case in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        try:
            answer = started(case["config"], case["arguments"])
        except Exception as problem:
            answer = {"problem": f"{type(problem).__name__}: {problem}"}
        print("ANSWER", json.dumps({"name": case["name"], "vllm": __version__, **answer}), flush=True)


if __name__ == "__main__":
    main()
