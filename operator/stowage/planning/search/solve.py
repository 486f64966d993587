"""The largest whole number at which something still holds, found along the slack's straight pieces.

Memory is piecewise linear in the batch limits, so where the line through two known points meets zero is nearly
always the answer or next to it. From a point that turns out to be on one side, steps that double look for the other
side: the result is exact for any slack that falls, and only the number of questions depends on how straight it is.
"""

from __future__ import annotations

from collections.abc import Callable


def largest(slack: Callable[[int], float], low: int, high: int) -> int:
    """Give the largest whole number in [low, high] whose slack is not negative, or `low` where there is none.

    `slack` must not rise. It is asked at `high` first.
    """
    if high <= low:
        return low
    high_slack = slack(high)
    if high_slack >= 0:
        return high
    low_slack = slack(low)
    if low_slack < 0:
        return low
    reach = 0
    while high - low > 1:
        line = low + int((high - low) * low_slack / (low_slack - high_slack))
        middle = max(line, low + reach) if reach > 0 else min(line, high + reach)
        middle = min(max(middle, low + 1), high - 1)
        found = slack(middle)
        if found >= 0:
            low, low_slack, reach = middle, found, 2 * reach if reach > 0 else 1
        else:
            high, high_slack, reach = middle, found, 2 * reach if reach < 0 else -1
    return low
