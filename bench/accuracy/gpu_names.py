"""Finding a GPU by the way people write its name in logs and issues.

A cases file says "A100 80GB", "NVIDIA GB10 (DGX Spark)" or "5060TI 16G". The catalog knows product names; this file
brings one to the other, by words and by a memory size where one is written. Several cards in one name: the
smallest decides, as it does for the engine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stowage.hardware.catalog import catalog, find_gpu
from stowage.hardware.gpu import Gpu

_MEMORY = re.compile(r"(?<![a-z\d.])(\d+(?:\.\d+)?)\s*(g(?:i?b)?|mi?b)\b")
_GENERATION = re.compile(r"^(?:rtx|gtx)?(\d{4})(ti|d)?$")
_FILLER = frozenset(
    {"nvidia", "geforce", "tesla", "amd", "radeon", "intel", "instinct", "gpu", "laptop", "total", "gb"}
    | {"hbm3", "sxm", "sxm4", "sxm5", "rtx"}
)


@dataclass(frozen=True)
class Card:
    """A GPU of the catalog, with the memory that the name itself states, in GiB, and whether the name decides
    the memory."""

    gpu: Gpu
    stated_gib: float | None
    decided: bool


def find_card(name: str) -> Card | None:
    """Find the card, the smallest of several; None where no word of the name is a known card."""
    cards = [card for part in re.split(r"\s\+\s|,| and ", name) if (card := _one(part)) is not None]
    return min(cards, key=lambda card: card.gpu.cuda_total_bytes, default=None)


def _one(name: str) -> Card | None:
    exact = find_gpu(name)
    text = re.sub(r"[_/()-]+", " ", name.lower())
    stated = _stated_gib(text)
    words = _words(_MEMORY.sub(" ", text))
    found = [exact] if exact is not None else _matching(words)
    if not found:
        return None
    if stated is not None:
        found = sorted(found, key=lambda gpu: abs(gpu.nvml_memory_bytes / 2**30 - stated))
        near = [gpu for gpu in found if abs(gpu.nvml_memory_bytes / 2**30 - stated) < 0.15 * stated]
        return Card((near or found)[0], stated, decided=bool(near))
    sizes = {round(gpu.nvml_memory_bytes / 2**30) // 4 for gpu in _siblings(words) or found}
    return Card(found[0], None, decided=len(sizes) == 1)


def _stated_gib(text: str) -> float | None:
    match = _MEMORY.search(text)
    if match is None:
        return None
    number = float(match[1])
    return number / 1024 if match[2].startswith("m") else number


def _words(text: str) -> frozenset[str]:
    words = set()
    for word in text.split():
        generation = _GENERATION.match(word)
        if generation is not None:
            words |= {word for word in generation.groups() if word}
        elif word not in _FILLER:
            words.add(word)
    return frozenset(words)


def _siblings(words: frozenset[str]) -> list[Gpu]:
    """Give all cards that share the main word of a name: those between which a bare name does not decide."""
    return [gpu for gpu in catalog().gpus if words & _gpu_words(gpu) and words <= _gpu_words(gpu)]


def _matching(words: frozenset[str]) -> list[Gpu]:
    """Give the cards with most words in common, those with the fewest other words first."""
    scored = []
    for gpu in catalog().gpus:
        known = _gpu_words(gpu)
        common = {word for word in words & known if any(c.isdigit() for c in word)}
        if common:
            scored.append((-len(words & known), len(known - words), gpu))
    scored.sort(key=lambda entry: entry[:2])
    best = scored[0][:2] if scored else None
    return [gpu for *score, gpu in scored if best is not None and score[0] == best[0]]


def _gpu_words(gpu: Gpu) -> frozenset[str]:
    text = " ".join((gpu.name, *gpu.aliases)).lower()
    return _words(_MEMORY.sub(" ", re.sub(r"[_/()-]+", " ", text)))
