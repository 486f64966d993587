"""Reads the user's prompts: one JSON object per line, checked before any engine is started.

Whatever is wrong ends in one sentence with the line's number, since the file was written by a person. Nothing is
guessed and no line is skipped: a check on fewer prompts than the user believes would promise too much.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stowage_runtime.contract.fields import shown
from stowage_runtime.failures import AgentFailure

PROMPTS_KEY = "prompts.jsonl"
MOST_PROMPTS = 5000
_MOST_ANSWER_TOKENS = 4096
_SHOWN_PROBLEMS = 3
_KEYS = ("prompt", "messages", "expected", "recorded", "maxTokens")


@dataclass(frozen=True)
class Prompt:
    """One question: ``text`` or chat ``messages``, with what is known of its answer.

    An answer is right when it holds one of ``expected``; ``recorded`` is what a lossless engine answered before.
    """

    line: int
    text: str | None
    messages: tuple[Mapping[str, Any], ...] | None
    expected: tuple[str, ...] = ()
    recorded: str | None = None
    max_tokens: int | None = None

    @property
    def has_reference(self) -> bool:
        """Whether an answer can be called right or wrong."""
        return bool(self.expected) or self.recorded is not None


@dataclass(frozen=True)
class PromptSet:
    """The prompts and the SHA-256 of the file that they came from."""

    prompts: tuple[Prompt, ...]
    digest: str


def read_prompts(folder: str, needs_reference: bool) -> PromptSet:
    """Read the prompts of a mounted ConfigMap; raises AgentFailure(InvalidPrompts) with the first bad lines.

    ``needs_reference`` where no baseline runs: then every prompt must have an expected or a recorded answer.
    """
    content = _content(folder)
    prompts, problems = [], []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            prompts.append(parse_prompt(line, number))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if needs_reference:
        problems += [
            f"line {prompt.line}: it has neither `expected` nor `recorded`; no lossless engine can run here to "
            "answer it, so add one of them"
            for prompt in prompts
            if not prompt.has_reference
        ]
    if problems:
        raise _invalid(_joined(problems))
    if not prompts:
        raise _invalid('it has no line; write at least one, such as {"prompt": "2 + 2 =", "expected": "4"}')
    if len(prompts) > MOST_PROMPTS:
        raise _invalid(f"it has {len(prompts)} prompts; at most {MOST_PROMPTS} are used in one check")
    return PromptSet(tuple(prompts), hashlib.sha256(content.encode()).hexdigest())


def parse_prompt(line: str, number: int) -> Prompt:
    """Read one line; raises ValueError with what is wrong and what to write instead."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error}); write one JSON object per line") from None
    if not isinstance(value, dict):
        raise ValueError(f"it is {shown(value)}; write an object with `prompt` or `messages`")
    unknown = sorted(set(value) - set(_KEYS))
    if unknown:
        raise ValueError(f"`{unknown[0]}` is not a known key; known are {', '.join(_KEYS)}")
    if ("prompt" in value) == ("messages" in value):
        raise ValueError("it must have either `prompt` or `messages`")
    return Prompt(
        line=number,
        text=_text(value, "prompt"),
        messages=_messages(value),
        expected=_expected(value),
        recorded=_text(value, "recorded"),
        max_tokens=_max_tokens(value),
    )


def _content(folder: str) -> str:
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        named = [name for name in names if name == PROMPTS_KEY] or names
        if len(named) != 1:
            found = ", ".join(names) or "nothing"
            raise _invalid(f"it holds {found}; put the prompts under the key {PROMPTS_KEY}")
        with open(os.path.join(folder, named[0]), encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise _invalid(f"it is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise _invalid(f"it cannot be read: {error}") from None


def _text(value: dict[str, Any], key: str) -> str | None:
    if key not in value:
        return None
    text = value[key]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"`{key}` is {shown(text)}; it must be a string that is not empty")
    return text


def _messages(value: dict[str, Any]) -> tuple[Mapping[str, Any], ...] | None:
    if "messages" not in value:
        return None
    messages = value["messages"]
    good = isinstance(messages, list) and messages
    if not good or not all(isinstance(each, dict) and isinstance(each.get("role"), str) for each in messages):
        raise ValueError(
            f"`messages` is {shown(messages)}; it must be a list of objects with `role` and `content`"
        )
    for each in messages:
        if not isinstance(each.get("content"), str):
            raise ValueError(f"a message has content {shown(each.get('content'))}; only text is compared")
    return tuple(messages)


def _expected(value: dict[str, Any]) -> tuple[str, ...]:
    if "expected" not in value:
        return ()
    expected = value["expected"]
    items = expected if isinstance(expected, list) else [expected]
    if not items or not all(isinstance(item, str) and item.strip() for item in items):
        raise ValueError(
            f"`expected` is {shown(expected)}; it must be a string or a list of strings, none empty"
        )
    return tuple(items)


def _max_tokens(value: dict[str, Any]) -> int | None:
    if "maxTokens" not in value:
        return None
    tokens = value["maxTokens"]
    if type(tokens) is not int or not 1 <= tokens <= _MOST_ANSWER_TOKENS:
        raise ValueError(f"`maxTokens` is {shown(tokens)}; it must be from 1 to {_MOST_ANSWER_TOKENS}")
    return tokens


def _joined(problems: list[str]) -> str:
    more = len(problems) - _SHOWN_PROBLEMS
    rest = f" (and {more} more lines)" if more > 0 else ""
    return "; ".join(problems[:_SHOWN_PROBLEMS]) + rest


def _invalid(problem: str) -> AgentFailure:
    return AgentFailure(
        "InvalidPrompts", f"The prompts of spec.precision.accuracy.promptsRef cannot be used: {problem}."
    )
