"""The options of `stowage memory`, named as vLLM names its own, so that a command line can be copied over.

Only declared here: `question` checks them and completes what is not stated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from stowage.commands.output import Output, OutputOption


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """What was said on the command line; None where nothing was."""

    model: Annotated[str, typer.Option(help="Folder with config.json, or a model id on the Hub.")]
    gpu: Annotated[str, typer.Option(help="GPU product name, as NVIDIA-L4; CPU for a CPU node.")]
    tensor_parallel_size: Annotated[
        int, typer.Option("--tensor-parallel-size", "-tp", help="GPUs that share each layer.")
    ] = 1
    pipeline_parallel_size: Annotated[
        int, typer.Option("--pipeline-parallel-size", "-pp", help="Stages that layers are divided among.")
    ] = 1
    data_parallel_size: Annotated[
        int, typer.Option("--data-parallel-size", "-dp", help="Ranks that each serve requests of their own.")
    ] = 1
    enable_expert_parallel: Annotated[
        bool, typer.Option("--enable-expert-parallel", help="Whole experts on each rank.")
    ] = False
    quantization: Annotated[
        str | None,
        typer.Option(
            help="Quantise a plain checkpoint while it is loaded, as fp8_per_tensor (fp8 before vLLM 0.31)."
        ),
    ] = None
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32.")] = "auto"
    kv_cache_dtype: Annotated[str, typer.Option(help="auto, bfloat16, fp8 …")] = "auto"
    gpu_memory_utilization: Annotated[
        float | None, typer.Option(help="Default: that of the engine version.")
    ] = None
    max_model_len: Annotated[
        int | None, typer.Option(help="Tokens of one request at most. Default: the model's own limit.")
    ] = None
    max_num_seqs: Annotated[int | None, typer.Option(help="Default: the server's for this device.")] = None
    max_num_batched_tokens: Annotated[
        int | None, typer.Option(help="Default: the server's for this device.")
    ] = None
    enforce_eager: Annotated[bool, typer.Option("--enforce-eager", help="No CUDA graphs.")] = False
    kv_cache_memory_bytes: Annotated[
        int | None, typer.Option(help="Pin the KV cache of each rank to so many bytes.")
    ] = None
    engine_version: Annotated[
        str | None, typer.Option(help="vLLM release. Default: the newest that is known.")
    ] = None
    total_memory_gib: Annotated[
        float | None, typer.Option(help="Memory that CUDA sees on one GPU, instead of the catalog's.")
    ] = None
    compute_capability: Annotated[
        str | None,
        typer.Option(help="Of a GPU that the catalog does not have, as 9.0; with --total-memory-gib."),
    ] = None
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.")] = None
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Also answer with a change, as kv-cache-dtype=fp8 or tensor-parallel-size=2,max-model-len=65536; "
            "may be repeated.",
        ),
    ] = None
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw it, as FILE.svg or FILE.html.")
    ] = None
    output: OutputOption = Output.TABLE
