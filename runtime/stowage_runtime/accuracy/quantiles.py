"""Quantiles of the beta and Student t distributions, which the standard library does not have.

Both come from the regularised incomplete beta function by its continued fraction (NIST DLMF 8.17.22, evaluated by the
modified Lentz method), inverted by bisection: a few hundred steps, exact to about 1e-12. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable

_STEPS = 500
_TINY = 1e-300
_PRECISION = 1e-15


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Return I_x(a, b), the share of the beta distribution below x."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    # The fraction converges fast only below the mean.
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - incomplete_beta(1.0 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _fraction(x, a, b) / a


def beta_quantile(share: float, a: float, b: float) -> float:
    """Return the x below which ``share`` of the beta distribution lies."""
    return _root(lambda x: incomplete_beta(x, a, b) - share, 0.0, 1.0)


def student_quantile(share: float, degrees: float) -> float:
    """Return the t below which ``share`` of Student's t distribution lies."""
    if share < 0.5:
        return -student_quantile(1.0 - share, degrees)
    # P(|T| > t) = I_x(degrees / 2, 1 / 2) with x = degrees / (degrees + t²); DLMF 8.17(vi).
    tail = 2.0 * (1.0 - share)
    x = _root(lambda value: incomplete_beta(value, degrees / 2.0, 0.5) - tail, 0.0, 1.0)
    return math.sqrt(degrees * (1.0 - x) / x) if x > 0.0 else math.inf


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, _inverse(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = _inverse(1.0 + even * d)
        c = _kept(1.0 + even / c)
        value *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = _inverse(1.0 + odd * d)
        c = _kept(1.0 + odd / c)
        value *= d * c
        if abs(d * c - 1.0) < _PRECISION:
            break
    return value


def _kept(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _inverse(value: float) -> float:
    return 1.0 / _kept(value)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Find where a rising function is zero."""
    for _ in range(200):
        middle = (low + high) / 2.0
        if middle in (low, high):
            break
        if function(middle) < 0.0:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0
