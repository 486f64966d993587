"""Asks aiconfigurator-core, in a process of its own: `python -m stowage.feed.aiconfigurator_worker`.

The package is heavy, prints, and keeps state between calls, none of which may reach whoever plans. One question in
JSON on standard input, one answer in JSON as the last line of standard output: `ttft_ms`, `tpot_ms`,
`requests_per_second` and `version`, or `refused` with the reason. Nothing here imports the rest of Stowage.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from typing import Any


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one question; every refusal says what is not covered."""
    try:
        from aiconfigurator_core.sdk import common, config, perf_database
        from aiconfigurator_core.sdk.backends.factory import get_backend
        from aiconfigurator_core.sdk.models import get_model
    except ImportError as problem:
        return {"refused": f"aiconfigurator-core is not installed ({problem})"}
    if question["model"] not in common.DefaultHFModels:
        return {"refused": f"aiconfigurator-core has no configuration of {question['model']}"}
    try:
        version = _version(perf_database, question)
        if version is None:
            return {"refused": f"aiconfigurator-core has no vLLM measurements for {question['system']}"}
        database = perf_database.get_database(question["system"], "vllm", version)
        settings = config.ModelConfig(
            tp_size=question["tensor_parallel_size"],
            pp_size=question["pipeline_parallel_size"],
            attention_dp_size=question["data_parallel_size"],
            moe_tp_size=question["moe_tp_size"],
            moe_ep_size=question["moe_ep_size"],
            kvcache_quant_mode=common.KVCacheQuantMode[question["kv_cache"]],
        )
        model = get_model(question["model"], settings, "vllm")
        runtime = config.RuntimeConfig(
            batch_size=question["batch"],
            isl=question["prompt_tokens"],
            osl=question["output_tokens"],
            prefix=question["prefix_tokens"],
        )
        # The backend remembers answers by lengths and batch alone, so each model and layout needs its own.
        summary = get_backend("vllm").run_agg(
            model, database, runtime, ctx_tokens=question["max_num_batched_tokens"]
        )
        return _figures(summary, version)
    except Exception as problem:
        return {"refused": f"aiconfigurator-core does not cover this: {type(problem).__name__}: {problem}"}


def _version(perf_database: Any, question: Mapping[str, Any]) -> str | None:
    """Choose the newest measured release up to the asked one, else the oldest: never the package's own default."""
    slots = perf_database.get_version_slots(question["system"], "vllm") or {}
    known = sorted({str(slot) for slot in slots.values() if slot}, key=_numbers)
    older = [slot for slot in known if _numbers(slot) <= _numbers(question["version"])]
    if not known:
        return None
    return older[-1] if older else known[0]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".") if part.isdigit())


def _figures(summary: Any, version: str) -> dict[str, Any]:
    found = summary.get_result_dict() or summary.get_summary_df().to_dict("records")[0]
    return {
        "ttft_ms": float(found["ttft"]),
        "tpot_ms": float(found["tpot"]),
        "requests_per_second": float(found["seq/s"]),
        "version": version,
    }


def main() -> int:
    """Answer the question on standard input."""
    logging.disable(logging.CRITICAL)
    result = answer(json.load(sys.stdin))
    print("\n" + json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
