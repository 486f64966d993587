"""What a case says about how the engine was launched: its command, its other flags, and its own columns.

The command is either a shell line (`vllm serve … --max-model-len 4096`, `python -c 'LLM(…)'`) or the printed
dictionary of arguments that differ from the defaults; both may be cut off anywhere. Names are normalised to the
engine's own (underscores). A column of the row wins over the command.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from bench.accuracy.case import Case
from bench.accuracy.values import structure

_SHORT = {
    "tp": "tensor-parallel-size",
    "pp": "pipeline-parallel-size",
    "dp": "data-parallel-size",
    "q": "quantization",
}
_KEYWORD = re.compile(r"(\w+)\s*=\s*('[^']*'|\"[^\"]*\"|\{[^{}]*\}|\[[^\[\]]*\]|[\w.+-]+)")
_PAIR = re.compile(r"'(\w+)':\s*('(?:[^'\\]|\\.)*'|\{[^{}]*\}|\[[^\[\]]*\]|[^,{}\[\]]+)")


def launch_options(case: Case) -> dict[str, Any]:
    """Give the options of a case; numbers and flags as such, everything else as text."""
    other = case.row.get("other_flags")
    options = {
        **parse_command(str(case.row.get("cmd") or "")),
        **(other if isinstance(other, Mapping) else {}),
    }
    return {name: structure(value) for name, value in options.items()}


def uses_offline_entry_point(case: Case) -> bool:
    """Tell whether the command shows the `LLM` class rather than the server."""
    return re.search(r"\bLLM\(", str(case.row.get("cmd") or "")) is not None


def chooses_length(case: Case) -> bool:
    """Tell whether the engine is told to take the longest context that fits (`--max-model-len auto` or -1)."""
    stated = case.row.get("max_model_len")
    stated = launch_options(case).get("max_model_len") if stated is None else stated
    return str(stated).lower() in ("auto", "-1")


def draft_settings(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give what is said about speculative decoding: one structure, or options of their own (older releases)."""
    settings = options.get("speculative_config")
    own = {
        name.removeprefix("speculative_config_"): value
        for name, value in options.items()
        if name.startswith("speculative_config_")
    }
    if options.get("speculative_model"):
        own = {"model": options["speculative_model"], **own}
        own["num_speculative_tokens"] = options.get("num_speculative_tokens")
    return {**own, **(settings if isinstance(settings, Mapping) else {})}


def draft_method(settings: Mapping[str, Any]) -> str:
    """Give how tokens are guessed: what is said, else what the engine takes from the draft's name
    (config/speculative.py, 0.32.0); older names of multi-token prediction all mean the same."""
    stated, model = settings.get("method"), str(settings.get("model") or "").lower()
    if isinstance(stated, str) and stated not in ("", "draft_model"):
        return "mtp" if stated.endswith("mtp") else stated.strip("[]")
    if model in ("ngram", "[ngram]") or "prompt_lookup_max" in settings:
        return "ngram"
    if "eagle-" in model:
        return "eagle"
    return next((name for name in ("eagle3", "dflash", "dspark", "medusa") if name in model), "draft_model")


def parse_command(command: str) -> dict[str, Any]:
    """Read a shell line, a printed dictionary or a call of `LLM(…)`, as far as it goes."""
    if command.lstrip().startswith("{"):
        return {name: structure(text) for name, text in _PAIR.findall(command)}
    call = re.search(r"\bLLM\((.*)", command, re.DOTALL)
    if call is not None:
        return {name: structure(text) for name, text in _KEYWORD.findall(call[1])}
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    options: dict[str, Any] = {}
    for position, word in enumerate(words):
        if not re.match(r"--?[a-zA-Z]", word):
            continue
        name, _, inline = word.lstrip("-").partition("=")
        following = words[position + 1] if position + 1 < len(words) else "--"
        value: Any = inline or (True if re.match(r"--(?:[a-zA-Z]|$)|-[a-zA-Z]", following) else following)
        name = _SHORT.get(name, name).replace("-", "_").replace(".", "_")
        if name.startswith("no_") and value is True:
            name, value = name.removeprefix("no_"), False
        options[name] = value
    return options
