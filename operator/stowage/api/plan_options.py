"""Engine options that belong to Stowage, with the field to use instead.

`runtime.args` goes to vLLM as it is. An option in it that the plan or the agent also sets would make the plan
untrue, so it is refused at admission. The renderer's tests check that it emits no option that this table
lacks.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

PLAN_OPTIONS: Final = MappingProxyType(
    {
        "--model": "use spec.model.source",
        "--tokenizer-revision": "use spec.model.revision",
        "--revision": "use spec.model.revision",
        "--code-revision": "use spec.model.revision",
        "--hf-token": "use spec.model.tokenSecretRef",
        "--download-dir": "Stowage mounts the cache itself",
        "--load-format": "Stowage chooses it by spec.model.source",
        "--served-model-name": "use spec.model.servedName",
        "--max-model-len": "use spec.workload.maxModelLen",
        "--dtype": "use spec.precision",
        "--quantization": "use spec.precision",
        "-q": "use spec.precision",
        "--kv-cache-dtype": "use spec.precision.kvCache",
        "--tensor-parallel-size": "use spec.parallelism.tensor",
        "-tp": "use spec.parallelism.tensor",
        "--pipeline-parallel-size": "use spec.parallelism.pipeline",
        "-pp": "use spec.parallelism.pipeline",
        "--data-parallel-size": "use spec.parallelism.data",
        "--data-parallel-size-local": "use spec.parallelism.data",
        "-dp": "use spec.parallelism.data",
        "-dpl": "use spec.parallelism.data",
        "--enable-expert-parallel": "use spec.parallelism.expertParallel",
        "--no-enable-expert-parallel": "use spec.parallelism.expertParallel",
        "-ep": "use spec.parallelism.expertParallel",
        "--gpu-memory-utilization": "use spec.engine.gpuMemoryUtilization",
        "--max-num-seqs": "use spec.engine.maxNumSeqs",
        "--max-num-batched-tokens": "use spec.engine.maxNumBatchedTokens",
        "--kv-cache-memory-bytes": "use spec.engine.kvCacheMemory",
        "--num-gpu-blocks-override": "use spec.engine.kvCacheMemory",
        "--enforce-eager": "use spec.engine.enforceEager",
        "--no-enforce-eager": "use spec.engine.enforceEager",
        "--block-size": "the memory model decides it",
        "--cpu-offload-gb": "the memory model does not cover it",
        "--swap-space": "the memory model does not cover it",
        "--enable-lora": "use spec.engine.loraAdapters",
        "--lora-modules": "use spec.engine.loraAdapters",
        "--max-loras": "use spec.engine.loraAdapters",
        "--max-lora-rank": "use spec.engine.loraAdapters",
        "--speculative-config": "use spec.engine.speculative",
        "-sc": "use spec.engine.speculative",
        "--distributed-executor-backend": "Stowage decides it by spec.parallelism",
        "--nnodes": "Stowage decides it by spec.parallelism",
        "--node-rank": "Stowage decides it by spec.parallelism",
        "--headless": "Stowage decides it by spec.parallelism",
        "--host": "the agent binds the address of the pod",
        "--port": "the Service expects port 8000",
        "--uds": "the Service expects port 8000",
        "--root-path": "the agent asks the engine under /",
        "--api-key": "put authentication in front of the Service",
        "--config": "write each option on its own",
        "--shutdown-timeout": "the agent drains the engine",
    }
)

_TABLE: Final = "|" + "".join(f"{option}={advice}|" for option, advice in PLAN_OPTIONS.items())
"""The table as one string: a single `contains` also finds what argparse accepts as an abbreviation."""

_KEY_CEL: Final = "'|' + self.split('=')[0].replace('_', '-')"

OPTION_IS_FREE_CEL: Final = f"!self.startsWith('-') || !'{_TABLE}'.contains({_KEY_CEL})"
"""True for a value, and for an option that neither is nor abbreviates one of the table."""

OPTION_TAKEN_MESSAGE_CEL: Final = (
    f"self.split('=')[0] + ' is set by Stowage: ' + '{_TABLE}'"
    f".split({_KEY_CEL})[1].split('=')[1].split('|')[0]"
)
"""The sentence for an option that is not free, with what to do instead."""


def option_conflict(argument: str) -> str | None:
    """Give the sentence for an argument that names an option of the table, else None."""
    key = argument.split("=", maxsplit=1)[0]
    if not key.startswith("-"):
        return None
    _, found, rest = _TABLE.partition("|" + key.replace("_", "-"))
    if not found:
        return None
    advice = rest.split("=", maxsplit=1)[1].split("|", maxsplit=1)[0]
    return f"{key} is set by Stowage: {advice}"
