"""Every reason is documented, well-formed, and every way in which an agent may end has one."""

from __future__ import annotations

import re

import pytest

from stowage.api.conditions import ConditionType, Reason
from stowage.api.reason_docs import CONDITION_MEANINGS, REASON_DOCS
from stowage_runtime.contract.reasons import TERMINATION_REASONS
from tools.generate_docs import render_reasons

TOLD_BY_EVENTS_ONLY = {Reason.BETTER_PLAN_FOUND}


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_meaning_a_hint_and_a_condition(reason: Reason) -> None:
    doc = REASON_DOCS[reason]
    assert doc.meaning.endswith(".")
    assert doc.hint.endswith(".")
    assert doc.conditions or reason in TOLD_BY_EVENTS_ONLY
    assert f"| `{reason}` |" in render_reasons()


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_one_camel_case_word_named_like_its_member(reason: Reason) -> None:
    assert re.fullmatch("[A-Z][A-Za-z0-9]*", reason.value)
    assert reason.value.lower() == reason.name.replace("_", "").lower()


@pytest.mark.parametrize("name", sorted(TERMINATION_REASONS))
def test_every_end_of_an_agent_can_be_shown_as_degraded(name: str) -> None:
    assert ConditionType.DEGRADED in REASON_DOCS[Reason(name)].conditions


def test_every_condition_has_a_meaning() -> None:
    assert set(CONDITION_MEANINGS) == set(ConditionType)
