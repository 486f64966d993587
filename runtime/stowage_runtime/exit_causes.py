"""Names the cause of an engine's end from its last lines, as a documented reason with one sentence.

vLLM's processes fail one after the other, and the last exception is only the messenger ("Engine core
initialization failed"). So a table of root causes, most telling first, is searched over all recent lines; the
engine's own numbers are kept. What no row knows stays ``EngineExited`` with the last real error line: never a
guess.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from typing import Any

from stowage_runtime.contract import Termination
from stowage_runtime.tables import BYTES_PER_GIB, rows_for

_PREFIX = re.compile(
    r"^(?:\([^)]*pid=\d+\)\s*)*"
    r"(?:(?:INFO|WARNING|ERROR|CRITICAL)\s+\d\d-\d\d \d\d:\d\d:\d\d\s+\[[^\]]*\]\s*)?"
)
_ERROR = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b(?:: .+)?")
_MESSENGERS = ("Engine core initialization failed", "EngineDeadError", "WorkerProc initialization failed")
_UNITS = {"bytes": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_SHOWN_ERROR = 400

STAGES = {
    "Loading": "loading the weights",
    "Profiling": "profiling the memory",
    "Warming": "capturing CUDA graphs and warming up",
    "Serving": "serving",
}
"""How far the engine had come, and how a sentence says it."""


def stage_of(lines_seen: Sequence[str], serving: bool) -> str:
    """Tell how far the engine came from the log lines that it printed."""
    if serving:
        return "Serving"
    if {"kv_available", "kv_tokens"} & set(lines_seen):
        return "Warming"
    return "Profiling" if {"weights", "load_time"} & set(lines_seen) else "Loading"


def classify_exit(lines: Sequence[str], returncode: int, engine_version: str, stage: str) -> Termination:
    """Explain why the engine ended; ``lines`` are its last ones, ``returncode`` is negative for a signal."""
    plain = [_PREFIX.sub("", line) for line in lines]
    for row in rows_for("exit_causes", engine_version):
        pattern = re.compile(row["pattern"])
        for line in plain:
            found = pattern.search(line)
            if found is not None:
                return _termination(row, found.groupdict(), stage)
    return Termination(
        reason="EngineExited",
        message=f"vLLM {_ended(returncode)} while {STAGES[stage]}{_last_error(plain)}",
        details={"stage": stage, "returnCode": returncode},
    )


def _termination(row: dict[str, Any], groups: dict[str, str | None], stage: str) -> Termination:
    details: dict[str, Any] = {"stage": stage}
    words: dict[str, str] = {"stage": STAGES[stage]}
    for group, text in groups.items():
        name, _, kind = group.rpartition("_")
        if text is None:
            continue
        value, words[name] = _read(kind, text)
        details[_key(name, kind)] = value
    return Termination(reason=row["reason"], message=row["message"].format(**words), details=details)


def _read(kind: str, text: str) -> tuple[Any, str]:
    """Return a group's value and how a sentence says it."""
    if kind == "gib":
        return round(float(text) * BYTES_PER_GIB), f"{float(text):.2f} GiB"
    if kind == "size":
        number, unit = text.split()
        return round(float(number) * _UNITS[unit]), f"{float(number):g} {unit}"
    if kind == "count":
        return int(text), f"{int(text):,}"
    if kind == "ratio":
        return float(text), text
    return text.strip(), text.strip().rstrip(".")


def _key(name: str, kind: str) -> str:
    head, *rest = name.split("_")
    camel = head + "".join(part.capitalize() for part in rest)
    return f"{camel}Bytes" if kind in ("gib", "size") else camel


def _ended(returncode: int) -> str:
    if returncode >= 0:
        return f"exited with code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    hint = " (often the container's memory limit)" if -returncode == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"


def _last_error(lines: Sequence[str]) -> str:
    for line in reversed(lines):
        found = _ERROR.match(line)
        if found is not None and not any(messenger in line for messenger in _MESSENGERS):
            return f": {found.group()[:_SHOWN_ERROR].rstrip('.')}."
    return "."
