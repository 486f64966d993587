"""The table of planted mistakes stays true to the sources: each text is there once, each test exists.

Planting them takes minutes and is run on demand: `python -m tests.memory.mutations.plant`.
"""

from __future__ import annotations

import pytest

from tests.memory.mutations.plant import ROOT, SOURCES, Mutation, mutations


@pytest.mark.parametrize("mutation", [pytest.param(each, id=each.formula) for each in mutations()])
def test_every_mistake_can_be_planted(mutation: Mutation) -> None:
    text = (SOURCES / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1
    assert mutation.new != mutation.old
    assert mutation.tests
    assert all((ROOT / test).is_file() for test in mutation.tests)
