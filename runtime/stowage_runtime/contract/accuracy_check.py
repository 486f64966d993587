"""What the operator tells the agent of an accuracy check: two engines to start, one after the other, and prompts.

It is mounted as a file from an immutable ConfigMap, like a LaunchSpec, so it must never hold anything secret. What
counts as a loss is not in it: the agent measures, the operator judges.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stowage_runtime.contract.fields import Record, constant, defaulted, integer, nested, optional, text, wire
from stowage_runtime.contract.launch_spec import LaunchSpec

_CHECK_ID = r"[0-9a-f]{8,64}"


@dataclass(frozen=True)
class AccuracyCheck(Record):
    """One comparison: ``candidate`` against ``baseline``, on the prompts in the folder ``prompts_path``.

    Without a baseline every prompt needs an expected or a recorded answer. ``answer_tokens`` is the longest answer
    in tokens where a prompt does not say otherwise; ``parallel_requests`` bounds the requests in flight.
    """

    check_id: str = field(metadata=wire(text("8 to 64 hexadecimal digits", _CHECK_ID, 64)))
    candidate: LaunchSpec = field(metadata=wire(nested(LaunchSpec)))
    prompts_path: str = field(metadata=wire(text("an absolute path in the container", r"/.*")))
    baseline: LaunchSpec | None = field(default=None, metadata=wire(optional(nested(LaunchSpec))))
    answer_tokens: int = field(default=128, metadata=wire(defaulted(integer(1, 4096))))
    parallel_requests: int = field(default=2, metadata=wire(defaulted(integer(1, 64))))
    schema: int = field(
        default=1, metadata=wire(constant(1, "use the same Stowage version for operator and agent"))
    )
