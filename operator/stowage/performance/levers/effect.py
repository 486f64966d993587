"""What one lever does: the values before and after it, and the verdict in a word.

Changes are shares of the value before (+0.25: a quarter more). A lever that moves nothing by 3 % is named useless,
since no forecast is that exact; it must never be left out, because knowing what does not help is half of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MATTERS: Final = 0.03
"""A change below this share is not worth the name."""


class LeverVerdict(StrEnum):
    """Whether to pull it.

    It gains and costs nothing, gains one thing for another, moves nothing, only costs, or cannot be had here.
    """

    HELPS = "Helps"
    TRADES = "Trades"
    USELESS = "Useless"
    HARMS = "Harms"
    IMPOSSIBLE = "Impossible"


@dataclass(frozen=True, slots=True)
class Change:
    """A value before and after, in the same unit."""

    before: float
    after: float

    @property
    def share(self) -> float:
        """Give the change as a share of the value before, 0 where that is nothing."""
        return self.after / self.before - 1 if self.before else 0.0


@dataclass(frozen=True, slots=True)
class Effect:
    """What changes for the same requests in flight.

    Rates are of all replicas that the lever makes of one. `requests_at_once` is what the batch limit and the KV cache
    allow, whatever is asked. `hourly_cost` and `cost_per_million_tokens` (of output) are in the currency of the prices
    or in GPU-hours where a GPU has no price.
    """

    output_tokens_per_second: Change
    ttft_seconds: Change
    tpot_seconds: Change
    requests_at_once: Change
    hourly_cost: Change
    cost_per_million_tokens: Change

    @property
    def gains(self) -> tuple[str, ...]:
        """Name what becomes better by as much as matters."""
        return self._moved(better=True)

    @property
    def losses(self) -> tuple[str, ...]:
        """Name what becomes worse by as much as matters."""
        return self._moved(better=False)

    def _moved(self, *, better: bool) -> tuple[str, ...]:
        shares = {
            "throughput": self.output_tokens_per_second.share,
            "TTFT": -self.ttft_seconds.share,
            "TPOT": -self.tpot_seconds.share,
            "cost": -self.cost_per_million_tokens.share,
        }
        sign = 1 if better else -1
        return tuple(name for name, share in shares.items() if sign * share >= MATTERS)


@dataclass(frozen=True, slots=True)
class Lever:
    """One lever, alone: what it changes, what that does, and why.

    `changes` says in engine or hardware terms what would be different. `effect` is None where it is impossible.
    `reason` comes from the bottleneck. `lossy`: answers may change. `unmeasured` names what no measurement supports;
    `assumption` what was taken for granted, empty where nothing was.
    """

    name: str
    changes: str
    effect: Effect | None
    verdict: LeverVerdict
    reason: str
    lossy: bool = False
    unmeasured: tuple[str, ...] = ()
    assumption: str = ""

    is_other_gpu: bool = False

    @property
    def sentence(self) -> str:
        """Say it in one line, as in `KV capacity ×30: ±0 % tokens/s: the batch is bound by max_num_seqs, not by KV`."""
        effect = self.effect
        if effect is None:
            return f"{self.name}: not here: {self.reason}"
        moved = f"{percent(effect.output_tokens_per_second.share)} tokens/s"
        if effect.hourly_cost.before != effect.hourly_cost.after:
            moved += f", {percent(effect.cost_per_million_tokens.share)} cost per token"
        return f"{self.name}: {moved}: {self.reason}"


def percent(share: float) -> str:
    """Write a change as people do, signed and without decimals: `+34 %`, `−5 %`, `±0 %`.

    Around the share that matters there is a decimal, so that `+2.6 %` is not taken for it.
    """
    number = round(100 * share)
    sign = "+" if number > 0 else "−" if number < 0 else "±"
    digits = 1 if abs(number) == round(100 * MATTERS) else 0
    return f"{sign}{100 * abs(share):.{digits}f} %"


def verdict_of(effect: Effect) -> LeverVerdict:
    """Judge an effect by what it gains and loses."""
    if effect.gains:
        return LeverVerdict.TRADES if effect.losses else LeverVerdict.HELPS
    return LeverVerdict.HARMS if effect.losses else LeverVerdict.USELESS
