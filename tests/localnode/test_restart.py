from __future__ import annotations

import pytest

from e2e.localnode.restart import BackOff, restarts


@pytest.mark.parametrize(
    ("policy", "exit_code", "is_init", "expected"),
    [
        ("Always", 0, False, True),
        ("Always", 1, False, True),
        ("OnFailure", 0, False, False),
        ("OnFailure", 1, False, True),
        ("Never", 1, False, False),
        ("OnFailure", 0, True, False),
        ("OnFailure", 3, True, True),
        ("Never", 3, True, False),
    ],
)
def test_restarts(policy: str, exit_code: int, is_init: bool, expected: bool) -> None:
    assert restarts(policy, exit_code, is_init=is_init) is expected


def test_the_first_restart_is_immediate_and_the_waits_double_up_to_thirty_times_the_base() -> None:
    back_off = BackOff(2.0)
    assert [back_off.delay_seconds(0.1) for _ in range(8)] == [0, 2, 4, 8, 16, 32, 60, 60]


def test_a_long_run_starts_the_waits_afresh() -> None:
    back_off = BackOff(1.0)
    for _ in range(5):
        back_off.delay_seconds(0.1)
    assert back_off.delay_seconds(60.0) == 0
    assert back_off.delay_seconds(0.1) == 1
