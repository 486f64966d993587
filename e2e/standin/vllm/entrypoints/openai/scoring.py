"""Token ids and log-probabilities of the stand-in, for those who compare two engines.

Why: an accuracy check asks for them, and its whole path has to run where no real engine can. A token is a byte, as
with the tiny models. It must never look like a measurement: the numbers follow from the token, its place and the loss
that the steering states.
"""

from __future__ import annotations

import hashlib
from argparse import Namespace
from collections.abc import Sequence

from .steering import Steering


def loss_nats(options: Namespace, steering: Steering) -> float:
    """By how much the log-probability of a token is lower on average, as steered."""
    eight_bit_cache = options.kv_cache_dtype.startswith(("fp8", "int8"))
    return steering.loss_nats + (steering.lossy_nats if options.quantization or eight_bit_cache else 0.0)


def token_ids(text: str) -> list[int]:
    """Return the bytes of a text."""
    return list(text.encode())


def prompt_logprobs(tokens: Sequence[int], loss: float) -> list[dict[str, dict[str, object]] | None]:
    """Return vLLM's `prompt_logprobs` with the token itself only; nothing for the first one."""
    found: list[dict[str, dict[str, object]] | None] = [None]
    for place, token in enumerate(tokens[1:], 1):
        value = -0.5 - _share(place, token) - loss * 2 * _share(token, place)
        found.append({str(token): {"logprob": value, "rank": 1, "decoded_token": chr(token)}})
    return found


def _share(*numbers: int) -> float:
    """A number from 0 to 1 that looks random and is always the same."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:4], "big") / 2**32
