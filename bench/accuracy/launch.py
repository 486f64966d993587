"""What a case says about how the engine was launched: its command, its other flags, and its own columns.

The command is either a shell line (`vllm serve … --max-model-len 4096`, `python -c 'LLM(…)'`) or the printed
dictionary of arguments that differ from the defaults; both may be cut off anywhere. Names are normalised to the
engine's own (underscores). A column of the row wins over the command.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Mapping
from typing import Any

from bench.accuracy.case import Case

_PAIR = re.compile(r"'(\w+)':\s*('(?:[^'\\]|\\.)*'|\{[^{}]*\}|\[[^\[\]]*\]|[^,{}\[\]]+)")


def launch_options(case: Case) -> dict[str, Any]:
    """Give the options of a case; numbers and flags as such, everything else as text."""
    other = case.row.get("other_flags")
    options = {
        **parse_command(str(case.row.get("cmd") or "")),
        **(other if isinstance(other, Mapping) else {}),
    }
    return {name: _value(value) for name, value in options.items()}


def uses_offline_entry_point(case: Case) -> bool:
    """Tell whether the command shows the `LLM` class rather than the server."""
    return re.search(r"\bLLM\(", str(case.row.get("cmd") or "")) is not None


def parse_command(command: str) -> dict[str, Any]:
    """Read a shell line or a printed dictionary, as far as it goes."""
    if command.lstrip().startswith("{"):
        return {name: _value(text) for name, text in _PAIR.findall(command)}
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    options: dict[str, Any] = {}
    for position, word in enumerate(words):
        if not word.startswith("--"):
            continue
        name, _, inline = word[2:].partition("=")
        following = words[position + 1] if position + 1 < len(words) else "--"
        value = inline or (True if following.startswith("--") else following)
        options[name.replace("-", "_").replace(".", "_")] = value
    return options


def _value(text: Any) -> Any:
    """Turn text into a number, flag or structure where it is one."""
    if not isinstance(text, str):
        return text
    stripped = text.strip()
    if stripped.lower() in ("true", "false"):
        return stripped.lower() == "true"
    try:
        return ast.literal_eval(stripped)
    except (ValueError, SyntaxError):
        return stripped.strip("'\"")
