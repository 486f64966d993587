"""What people write where a row wants a name: "8xH100", "Qwen3-32B-AWQ", "v0.6.3.post1+cu121".

Read leniently, because a measured row is worth more than a tidy one; every reading is deterministic and none looks
at what was measured.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BEFORE = re.compile(r"^\s*(\d{1,3})\s*(?:[x×*]|gpus?\b:?)\s*(?=[a-z])", re.IGNORECASE)
_BEHIND = re.compile(
    r"\s*(?:[x×*]\s*(\d{1,3})|\(\s*[x×]?\s*(\d{1,3})\s*(?:gpus?|cards?|x)?\s*\))\s*$", re.IGNORECASE
)
_CLOUD = re.compile(r"^[a-z]\d?[a-z]*\d*[a-z]*[-.](?:highgpu|ultragpu|megagpu|\d*x?large)", re.IGNORECASE)

_RELEASE = re.compile(r"(?<![\d.])(\d{1,2}\.\d{1,3}(?:\.\d{1,3})?)")

_IN_MODEL_NAMES = (
    ("nvfp4", re.compile(r"nvfp4|mxfp4|(?<![a-z])fp4", re.IGNORECASE)),
    ("fp8", re.compile(r"fp8", re.IGNORECASE)),
    ("awq", re.compile(r"awq", re.IGNORECASE)),
    ("gptq8", re.compile(r"gptq.?(?:int)?8|w8a16", re.IGNORECASE)),
    ("gptq", re.compile(r"gptq|w4a16|autoround", re.IGNORECASE)),
    ("int8", re.compile(r"w8a8|int8", re.IGNORECASE)),
    ("nf4", re.compile(r"bnb|bitsandbytes|nf4", re.IGNORECASE)),
    ("int4", re.compile(r"int4|4.?bit", re.IGNORECASE)),
)


@dataclass(frozen=True)
class WrittenGpu:
    """A GPU's name without the count that was written beside it, and that count."""

    name: str
    count: int | None


def written_gpu(text: str) -> WrittenGpu:
    """Tell name and count apart, as in "8xH100", "H100 x8", "4 × A100 80GB" and "L40S (2)"."""
    name, count = text.strip(), None
    before = _BEFORE.match(name)
    if before is not None:
        name, count = name[before.end() :], int(before[1])
    behind = _BEHIND.search(name)
    if behind is not None and behind.start() > 0:
        name, count = name[: behind.start()], count or int(behind[1] or behind[2])
    if _CLOUD.match(name):
        return WrittenGpu("", count)
    return WrittenGpu(name.strip(), count)


def precision_in_name(model_id: str) -> str | None:
    """Give the precision that a checkpoint's name carries, as in `Qwen3-32B-AWQ`; None where it carries none."""
    name = model_id.rsplit("/", 1)[-1]
    return next((word for word, pattern in _IN_MODEL_NAMES if pattern.search(name)), None)


def written_release(text: str) -> str | None:
    """Give the release number inside a version's name, as in "vLLM v0.8.x (docker)"; None where there is none."""
    found = _RELEASE.search(text)
    return found[1] if found else None
