"""`stowage memory`: the memory ledger of one given shape, without any cluster and without any plan.

Options are named as vLLM names its own, so that a command line can be copied over. Exit codes: 0 it fits, 1
it does not fit or is not supported yet (never an approximate number), 2 bad input.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.commands.bad_input import EXIT_DOES_NOT_FIT, bad_input
from stowage.commands.memory_document import ledger_document, refusal_document
from stowage.commands.memory_picture import write_picture
from stowage.commands.memory_question import MemoryQuestion, Wishes, read_question
from stowage.commands.memory_table import print_ledger
from stowage.commands.what_if import WhatIf, answer_document, print_what_ifs, read_what_ifs
from stowage.memory.budget import rank_ledgers, tightest
from stowage.memory.ledger import Ledger

_BAD_INPUT: Final = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.PIN_CONFLICT,
        Reason.INVALID_MODEL_CONFIG,
        Reason.INVALID_CHECKPOINT,
        Reason.MODEL_NOT_FOUND,
        Reason.REVISION_NOT_FOUND,
        Reason.MODEL_ACCESS_DENIED,
        Reason.HUB_UNREACHABLE,
        Reason.HUB_RATE_LIMITED,
        Reason.UNKNOWN_GPU,
        Reason.UNSUPPORTED_ENGINE_VERSION,
    }
)


class Output(StrEnum):
    """How the ledger is written."""

    TABLE = "table"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("memory")(memory_command)


def memory_command(  # noqa: PLR0913 - one parameter for each option
    model: Annotated[str, typer.Option("--model", help="Folder with config.json, or a model id on the Hub.")],
    gpu: Annotated[str, typer.Option("--gpu", help="GPU product name, as NVIDIA-L4; CPU for a CPU node.")],
    tensor_parallel_size: Annotated[int, typer.Option("--tensor-parallel-size", "-tp")] = 1,
    pipeline_parallel_size: Annotated[int, typer.Option("--pipeline-parallel-size", "-pp")] = 1,
    data_parallel_size: Annotated[int, typer.Option("--data-parallel-size", "-dp")] = 1,
    enable_expert_parallel: Annotated[
        bool, typer.Option("--enable-expert-parallel", help="Whole experts on each rank.")
    ] = False,
    quantization: Annotated[
        str | None, typer.Option("--quantization", help="Quantise a plain checkpoint while it is loaded.")
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="auto, bfloat16, float16 or float32.")] = "auto",
    kv_cache_dtype: Annotated[str, typer.Option("--kv-cache-dtype", help="auto, bfloat16, fp8 …")] = "auto",
    gpu_memory_utilization: Annotated[
        float | None, typer.Option("--gpu-memory-utilization", help="Default: that of the engine version.")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option("--max-model-len", help="Default: what the engine takes for this model.")
    ] = None,
    max_num_seqs: Annotated[
        int | None, typer.Option("--max-num-seqs", help="Default: the server's for this device.")
    ] = None,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option("--max-num-batched-tokens", help="Default: the server's for this device.")
    ] = None,
    enforce_eager: Annotated[bool, typer.Option("--enforce-eager", help="No CUDA graphs.")] = False,
    kv_cache_memory_bytes: Annotated[
        int | None, typer.Option("--kv-cache-memory-bytes", help="Pin the KV cache of each rank.")
    ] = None,
    engine_version: Annotated[
        str | None, typer.Option("--engine-version", help="vLLM release; default: the newest known.")
    ] = None,
    total_memory_gib: Annotated[
        float | None,
        typer.Option("--total-memory-gib", help="Memory that CUDA sees, instead of the catalog's."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Revision of a model on the Hub.")
    ] = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option("--what-if", help="Also answer with a change, as kv-cache-dtype=fp8; may be repeated."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="Also draw it, as an SVG.")
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How it is written.")] = Output.TABLE,
) -> None:
    """Show what one rank of this shape holds: weights, KV cache, activations, CUDA graphs and the rest."""
    wishes = Wishes(
        tensor_parallel_size=tensor_parallel_size,
        pipeline_parallel_size=pipeline_parallel_size,
        dtype=dtype,
        kv_cache_dtype=kv_cache_dtype,
        gpu_memory_utilization=gpu_memory_utilization,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        enforce_eager=enforce_eager,
        kv_cache_memory_bytes=kv_cache_memory_bytes,
        engine_version=engine_version,
        total_memory_gib=total_memory_gib,
        data_parallel_size=data_parallel_size,
        enable_expert_parallel=enable_expert_parallel,
        quantization=quantization,
    )
    question = read_question(model, revision, gpu, wishes)
    if isinstance(question, Refusal):
        _refuse(question, output)
        return
    changes = read_what_ifs(question, what_if or ())
    if isinstance(changes, Refusal):
        _refuse(changes, output)
        return
    _answer(question, changes, output, picture)


def _answer(
    question: MemoryQuestion, changes: tuple[WhatIf, ...], output: Output, picture: Path | None
) -> None:
    ledgers = rank_ledgers(question.profile, question.shape, question.device, question.version)
    if isinstance(ledgers, Refusal):
        _refuse(ledgers, output)
        return
    if output is Output.JSON:
        document = ledger_document(question, tightest(ledgers))
        document["what_if"] = [answer_document(change) for change in changes]
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print_ledger(question, ledgers)
        if changes:
            print_what_ifs(question, changes, Console(highlight=False, soft_wrap=True))
    if picture is not None:
        _draw(picture, question, ledgers)
    if tightest(ledgers).verdict == "DoesNotFit":
        raise typer.Exit(EXIT_DOES_NOT_FIT)


def _draw(path: Path, question: MemoryQuestion, ledgers: tuple[Ledger, ...]) -> None:
    try:
        write_picture(path, question, ledgers)
    except OSError as problem:
        bad_input(f"--picture {path}: {problem.strerror or problem}; give a file that can be written.")


def _refuse(refusal: Refusal, output: Output) -> None:
    if refusal.reason in _BAD_INPUT:
        bad_input(f"{refusal.reason.value}: {refusal.sentence}")
    if output is Output.JSON:
        typer.echo(refusal_document(refusal))
    else:
        typer.echo(f"{refusal.reason.value}: {refusal.sentence}")
    raise typer.Exit(EXIT_DOES_NOT_FIT)
