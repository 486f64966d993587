"""The confidence bounds: known values, coverage by counting every outcome, and what they must never do."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage_runtime.accuracy.bounds import CONFIDENCE, mean_bounds, paired_drop, share_high, share_low
from stowage_runtime.accuracy.quantiles import beta_quantile, incomplete_beta, student_quantile

settings.register_profile("accuracy", deadline=None, max_examples=40)
settings.load_profile("accuracy")

counts = st.integers(1, 400).flatmap(
    lambda total: st.tuples(st.integers(0, total), st.integers(0, total), st.just(total))
)
pairs = counts.filter(lambda each: each[0] + each[1] <= each[2])
differences = st.lists(st.floats(-2.0, 2.0, allow_subnormal=False), min_size=2, max_size=16)


@pytest.mark.parametrize(
    ("found", "published"),
    [
        pytest.param(student_quantile(0.95, 10), 1.8125, id="t with 10 degrees of freedom, 95 %"),
        pytest.param(student_quantile(0.975, 99), 1.9842, id="t with 99 degrees of freedom, 97.5 %"),
        pytest.param(student_quantile(0.95, 1), 6.3138, id="t with 1 degree of freedom is Cauchy's"),
        pytest.param(student_quantile(0.05, 10), -1.8125, id="t is symmetric"),
        pytest.param(beta_quantile(0.5, 2, 2), 0.5, id="the median of a symmetric beta"),
        pytest.param(incomplete_beta(0.25, 1, 1), 0.25, id="beta(1, 1) is uniform"),
        pytest.param(incomplete_beta(0.5, 2, 3), 0.6875, id="beta(2, 3) as a polynomial"),
        pytest.param(share_high(0, 100, 0.05), 1 - 0.05**0.01, id="no loss in 100: the exact rule of three"),
        pytest.param(share_high(10, 100, 0.025), 0.17622, id="Clopper and Pearson above 10 of 100"),
        pytest.param(share_low(10, 100, 0.025), 0.04900, id="Clopper and Pearson below 10 of 100"),
    ],
)
def test_quantiles_and_shares_have_their_published_values(found: float, published: float) -> None:
    assert found == pytest.approx(published, abs=5e-5)


@given(st.floats(0.001, 0.999), st.floats(0.5, 300), st.floats(0.5, 300))
def test_the_beta_quantile_inverts_the_distribution(share: float, a: float, b: float) -> None:
    assert incomplete_beta(beta_quantile(share, a, b), a, b) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("total", [5, 12, 25])
@pytest.mark.parametrize(("loses", "gains"), [(0.0, 0.0), (0.02, 0.0), (0.1, 0.05), (0.3, 0.3), (0.05, 0.4)])
def test_the_true_drop_lies_within_each_bound_as_often_as_promised(
    total: int, loses: float, gains: float
) -> None:
    """Every outcome of `total` pairs is counted with its exact chance: no simulation, no tolerance."""
    above = below = 0.0
    for lost, gained in product(range(total + 1), repeat=2):
        rest = total - lost - gained
        if rest < 0:
            continue
        ways = math.comb(total, lost) * math.comb(total - lost, gained)
        chance = ways * loses**lost * gains**gained * (1 - loses - gains) ** rest
        bounds = paired_drop(lost, gained, total)
        above += chance * (loses - gains <= bounds.high + 1e-12)
        below += chance * (bounds.low - 1e-12 <= loses - gains)
    assert above >= CONFIDENCE
    assert below >= CONFIDENCE


@given(pairs)
def test_the_bounds_enclose_the_estimate_and_stay_shares(outcome: tuple[int, int, int]) -> None:
    bounds = paired_drop(*outcome)
    assert -1.0 <= bounds.low <= bounds.estimate <= bounds.high <= 1.0


@given(pairs)
def test_one_more_lost_answer_never_makes_a_bound_smaller(outcome: tuple[int, int, int]) -> None:
    lost, gained, total = outcome
    if lost + gained < total:
        fewer, more = paired_drop(lost, gained, total), paired_drop(lost + 1, gained, total)
        assert more.high >= fewer.high
        assert more.low >= fewer.low


@given(st.integers(1, 400), st.integers(1, 200))
def test_more_prompts_without_a_loss_bound_it_more_closely(total: int, more: int) -> None:
    assert paired_drop(0, 0, total + more).high < paired_drop(0, 0, total).high


@given(differences)
def test_the_mean_lies_between_its_bounds(values: list[float]) -> None:
    bounds = mean_bounds(values)
    assert bounds is not None
    assert bounds.low <= bounds.estimate <= bounds.high


@given(differences, st.floats(0.0, 1.0))
def test_a_greater_loss_everywhere_is_a_greater_bound(values: list[float], more: float) -> None:
    one, other = mean_bounds(values), mean_bounds([value + more for value in values])
    assert one is not None
    assert other is not None
    assert other.high >= one.high - 1e-6
    assert other.low >= one.low - 1e-6


def test_the_same_differences_give_the_same_bounds() -> None:
    values = [random.Random(1).gauss(0, 1) for _ in range(50)]
    assert mean_bounds(values) == mean_bounds(list(values))


@pytest.mark.parametrize("values", [[], [0.5]], ids=["no value", "one value"])
def test_too_few_values_have_no_bounds(values: list[float]) -> None:
    assert mean_bounds(values) is None


@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        pytest.param(lambda source: source.gauss(0.01, 0.02), 0.01, id="normal"),
        pytest.param(lambda source: source.expovariate(1), 1.0, id="skewed, as losses of likelihood are"),
        pytest.param(
            lambda source: source.expovariate(1) * (source.random() < 0.2), 0.2, id="mostly nothing"
        ),
    ],
)
def test_the_mean_is_covered_about_as_often_as_promised(draw, mean: float) -> None:  # type: ignore[no-untyped-def]
    """A simulation with a fixed seed: 50 samples of 30; nominal 95 %, three standard errors below are allowed."""
    source = random.Random(7)
    samples = [mean_bounds([draw(source) for _ in range(30)]) for _ in range(50)]
    covered = sum(bounds is not None and mean <= bounds.high for bounds in samples)
    assert covered / len(samples) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / len(samples))
