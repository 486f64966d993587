"""What one engine says to the prompts: token ids, greedy answers, and log-probabilities of given answers.

Everything goes through token ids, so that both engines see exactly the same text. Answers are scored in a prefill,
the same way on every engine, a few requests at a time: the engine does not profile the memory that the
log-probabilities of a prompt take. Nothing here knows which engine is the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from stowage_runtime.accuracy.prompts import Prompt
from stowage_runtime.engine_client import EngineClient, EngineRequestError
from stowage_runtime.failures import AgentFailure

LEAST_LOG_PROBABILITY = -20.0
"""A token that is less likely counts as this (nats): one absurd token must not decide about all answers."""

_REQUEST_SECONDS = 900.0

T = TypeVar("T")
R = TypeVar("R")


Call = Callable[[Callable[[], Any]], Any]


def _at_once(function: Callable[[], Any]) -> Any:
    return function()


@dataclass(frozen=True)
class Answer:
    """What the engine generated, with its token ids."""

    text: str
    tokens: tuple[int, ...]


class Scorer:
    """Asks one engine; ``parallel`` bounds the requests in flight.

    ``call`` runs what blocks for minutes, so that its caller can notice signals and the engine's end meanwhile.
    """

    def __init__(self, client: EngineClient, model: str, parallel: int, call: Call = _at_once) -> None:
        self._client = client
        self._model = model
        self._parallel = parallel
        self._call = call
        self._longest: int | None = None

    def tokenize(self, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
        """Return the token ids of every prompt, chat messages through the model's own template."""
        return self._each(self._tokenize, prompts)

    def answer(
        self, prompts: Sequence[Prompt], tokens: Sequence[tuple[int, ...]], most_tokens: int
    ) -> list[Answer]:
        """Return the greedy answer to every prompt."""
        limits = [self._room(prompt, ids, most_tokens) for prompt, ids in _pairs(prompts, tokens)]
        return self._each(lambda item: self._answer(*item), _pairs(tokens, limits))

    def score(
        self, tokens: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]]
    ) -> list[tuple[float, ...]]:
        """Return the log-probability (nats) of every token of the answers, each after its prompt."""
        return self._each(lambda item: self._score(*item), _pairs(tokens, answers))

    def _each(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        def every() -> list[R]:
            with ThreadPoolExecutor(max_workers=self._parallel) as pool:
                return list(pool.map(function, items))

        found: list[R] = self._call(every)
        return found

    def _tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        body: dict[str, Any] = {"model": self._model}
        if prompt.messages is not None:
            body["messages"] = [dict(message) for message in prompt.messages]
        else:
            body["prompt"] = prompt.text
        try:
            answer = self._client.ask("/tokenize", body, _REQUEST_SECONDS)
        except EngineRequestError as error:
            if error.status is None or error.status >= 500:
                raise
            raise _invalid_prompt(prompt, f"the engine refuses it: {error}") from None
        longest = answer.get("max_model_len")
        self._longest = longest if isinstance(longest, int) else self._longest
        tokens = _token_ids(answer.get("tokens"), "/tokenize")
        if not tokens:
            raise _invalid_prompt(prompt, "it has no token")
        return tokens

    def _room(self, prompt: Prompt, tokens: tuple[int, ...], most_tokens: int) -> int:
        """Tokens that the answer may have; scoring it takes one more position than its tokens."""
        wanted = prompt.max_tokens or most_tokens
        if self._longest is None:
            return wanted
        room = self._longest - len(tokens) - 1
        if room < 1:
            raise _invalid_prompt(
                prompt, f"it has {len(tokens)} tokens, and the plan serves {self._longest} with the answer"
            )
        return min(wanted, room)

    def _answer(self, tokens: tuple[int, ...], most_tokens: int) -> Answer:
        body = {**self._body(tokens, most_tokens), "return_token_ids": True}
        choice = _choice(self._client.ask("/v1/completions", body, _REQUEST_SECONDS))
        text = choice.get("text")
        ids = _token_ids(choice.get("token_ids"), "/v1/completions")
        return Answer(text if isinstance(text, str) else "", ids)

    def _score(self, tokens: tuple[int, ...], answer: tuple[int, ...]) -> tuple[float, ...]:
        if not answer:
            return ()
        body = {**self._body((*tokens, *answer), 1), "prompt_logprobs": 0}
        choice = _choice(self._client.ask("/v1/completions", body, _REQUEST_SECONDS))
        entries = choice.get("prompt_logprobs")
        if not isinstance(entries, list) or len(entries) != len(tokens) + len(answer):
            raise EngineRequestError("the engine did not give the log-probability of every token", 200)
        scored = entries[len(tokens) :]
        return tuple(_log_probability(scored[index], token) for index, token in enumerate(answer))

    def _body(self, tokens: tuple[int, ...], most_tokens: int) -> dict[str, Any]:
        return {"model": self._model, "prompt": list(tokens), "max_tokens": most_tokens, "temperature": 0}


def _pairs(left: Sequence[T], right: Sequence[R]) -> list[tuple[T, R]]:
    if len(left) != len(right):
        raise ValueError(f"{len(left)} and {len(right)} items do not pair up")
    return [(item, right[index]) for index, item in enumerate(left)]


def _choice(answer: dict[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise EngineRequestError("the engine's answer holds no completion", 200)
    choice: dict[str, Any] = choices[0]
    return choice


def _token_ids(value: object, path: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise EngineRequestError(f"{path} gave no token ids; this engine cannot be checked", 200)
    return tuple(value)


def _log_probability(entry: object, token: int) -> float:
    found = entry.get(str(token)) if isinstance(entry, dict) else None
    value = found.get("logprob") if isinstance(found, dict) else None
    if not isinstance(value, (int, float)) or math.isnan(value):
        raise EngineRequestError(f"the engine gave no log-probability of token {token}", 200)
    return max(LEAST_LOG_PROBABILITY, min(0.0, float(value)))


def _invalid_prompt(prompt: Prompt, problem: str) -> AgentFailure:
    return AgentFailure(
        "InvalidPrompts",
        f"The prompts of spec.precision.accuracy.promptsRef cannot be used: line {prompt.line}: {problem}.",
    )
