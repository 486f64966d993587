"""A documented reason that nothing can produce would send people looking for what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

import stowage
from stowage.api.reasons import Reason
from stowage_runtime.contract import TERMINATION_REASONS

PACKAGE = Path(stowage.__file__).parent
SOURCE = "\n".join(
    path.read_text(encoding="utf-8")
    for path in PACKAGE.rglob("*.py")
    if "reason_docs" not in path.parts and path.name != "reasons.py"
)


@pytest.mark.parametrize("reason", list(Reason), ids=str)
def test_every_reason_is_given_somewhere(reason: Reason) -> None:
    assert reason.value in TERMINATION_REASONS or f"Reason.{reason.name}" in SOURCE
