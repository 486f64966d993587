"""Constants that had to be taken from logged starts, each worked out again without one source at a time.

A constant that only fits the logs it came from would predict the others badly. For every such constant: what each
start asks it to be (its prediction's remainder put into it), the median over the other sources, and how far the KV
cache is then off for the source that was left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.accuracy.case import Case
from bench.accuracy.models import ModelFolder
from bench.accuracy.question import Question, ask, find_device
from stowage.api.refusal import Refusal
from stowage.memory.budget import rank_ledgers, tightest
from stowage.memory.estimates import sampler_bytes_per_logit, shares_host_memory, unified_growth_bytes
from stowage.memory.ledger import Ledger

_GIB = 2**30


@dataclass(frozen=True)
class Start:
    """One measured start with its ledger; `missing_bytes` is what was predicted too much for the KV cache."""

    case: Case
    question: Question
    ledger: Ledger
    missing_bytes: float

    @property
    def source(self) -> str:
        """The repository or thread that the log is from."""
        return str(self.case.row.get("source")).split(" ")[0].split("#")[0]


@dataclass(frozen=True)
class Constant:
    """A constant: which starts tell it, what it is taken to be, and how many bytes one unit of it is."""

    name: str
    unit: str
    tells: Callable[[Start], bool]
    value: Callable[[Start], float]
    bytes_of_one: Callable[[Start], float]


def _logits(start: Start) -> float:
    return float(start.question.shape.max_num_seqs * start.question.profile.padded_vocab_size)


def _sorts(start: Start) -> bool:
    shape, version = start.question.shape, start.question.version
    sampler = sampler_bytes_per_logit("sort").value * _logits(start)
    return (
        version.sampler == "sort"
        and shape.world_size == 1
        and not version.graphs_subtracted
        and sampler > 0.8 * start.ledger.activation_bytes
        and sampler > _GIB
    )


CONSTANTS = (
    Constant(
        "growth of memory that GPU and host share",
        "GiB",
        lambda start: shares_host_memory(start.question.device.compute_capability),
        lambda start: unified_growth_bytes(start.question.device.compute_capability).value / _GIB,
        lambda _start: float(_GIB),
    ),
    Constant(
        "the sampler that sorts",
        "bytes per logit",
        _sorts,
        lambda _start: sampler_bytes_per_logit("sort").value,
        _logits,
    ),
)


def starts(cases: Iterable[Case], models: ModelFolder) -> list[Start]:
    """Give the core rows whose KV bytes are logged: others leave too much open to ask a constant of them."""
    found = []
    for case in cases:
        measured, device, question = case.row.get("kv_available_gib"), find_device(case), ask(case, models)
        if (
            isinstance(device, str)
            or not case.is_core(device[1])
            or not measured
            or isinstance(question, str)
        ):
            continue
        ledgers = rank_ledgers(question.profile, question.shape, question.device, question.version)
        if not isinstance(ledgers, Refusal):
            worst = tightest(ledgers)
            found.append(Start(case, question, worst, worst.kv_cache_bytes - measured * _GIB))
    return found


def report(constant: Constant, known: Sequence[Start]) -> list[str]:
    """Give the lines about one constant; a single line where fewer than two sources tell it."""
    telling = [start for start in known if constant.tells(start)]
    sources = sorted({start.source for start in telling})
    if len(sources) < 2:
        return [f"{constant.name}: {len(sources)} source; nothing can be left out"]
    asked = {
        id(start): constant.value(start) + start.missing_bytes / constant.bytes_of_one(start)
        for start in telling
    }
    lines = [f"{constant.name}: {constant.value(telling[0]):.2f} {constant.unit}, {len(telling)} starts"]
    for left_out in sources:
        others = median(asked[id(start)] for start in telling if start.source != left_out)
        mine = [start for start in telling if start.source == left_out]
        off = [_error(constant, start, others) for start in mine]
        lines.append(
            f"  without {left_out} ({len(mine)}): {others:.2f}; its KV cache then {median(off):+.1%} off"
        )
    return lines


def _error(constant: Constant, start: Start, value: float) -> float:
    moved = (value - constant.value(start)) * constant.bytes_of_one(start)
    measured = start.ledger.kv_cache_bytes - start.missing_bytes
    return (start.ledger.kv_cache_bytes - moved) / measured - 1
