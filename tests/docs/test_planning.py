"""The computed parts of docs/planning.md and docs/performance-claims.md are what the planner computes today."""

from __future__ import annotations

import re

import pytest

from stowage.performance.levers.effect import Lever, LeverVerdict
from stowage.planning.explain.levers import plan_levers
from tools.planning_examples import EXAMPLES, answered
from tools.planning_pages import (
    CLAIMS,
    PICTURE,
    PLANNING,
    drawn_plan,
    evidence_table,
    part_of,
    parts,
    with_parts,
)

PAGES = {path.name: path.read_text(encoding="utf-8") for path in (PLANNING, CLAIMS)}


def page_with(name: str) -> str:
    return next(text for text in PAGES.values() if f"<!-- computed: {name} -->" in text)


@pytest.mark.parametrize("name", sorted(parts()))
def test_a_computed_part_is_up_to_date(name: str) -> None:
    wanted = parts()[name]()
    assert part_of(page_with(name), name) == wanted, "run python -m tools.planning_pages"


def test_the_picture_is_up_to_date() -> None:
    assert PICTURE.read_text(encoding="utf-8") == drawn_plan(), "run python -m tools.planning_pages"


def test_there_are_twelve_examples_each_with_a_model_of_its_own() -> None:
    rows = part_of(PAGES["planning.md"], "examples").splitlines()[2:]
    assert len(rows) == len({row.split("|")[1] for row in rows}) == 12


def test_every_example_has_levers_that_help_and_levers_that_are_useless() -> None:
    for example in EXAMPLES:
        found: tuple[Lever, ...] = plan_levers(*answered(example))
        verdicts = {lever.verdict for lever in found if not lever.is_other_gpu}
        assert {LeverVerdict.HELPS, LeverVerdict.USELESS} <= verdicts, example.name


def test_the_evidence_names_every_gpu_and_is_within_the_goals() -> None:
    rows = part_of(PAGES["planning.md"], "evidence").splitlines()
    table = {
        row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:-1]]
        for row in rows
        if "|" in row
    }
    assert {"all", "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200", "NVIDIA-B200"} <= set(table)
    _, tpot, tpot_p90, signed, ttft, ttft_p90, _ = (float(cell.rstrip("%")) for cell in table["all"])
    assert tpot <= 10
    assert tpot_p90 <= 30
    assert abs(signed) <= 5
    assert ttft <= 25
    assert ttft_p90 <= 60
    picked = re.search(r"in (\d+) of (\d+) groups", rows[-1])
    assert picked is not None
    assert int(picked[1]) / int(picked[2]) >= 0.92


def test_the_evidence_is_written_from_a_run_of_the_bench() -> None:
    score = {"number": 3, "median": 0.05, "p90": 0.2, "signed": -0.01}
    summary = {
        "tpot_ms": score,
        "ttft_ms": score,
        "by_gpu": {"NVIDIA-H200": {"tpot_ms": score, "ttft_ms": score}},
        "fastest_layout": {"groups": 10, "picked": 9, "share": 0.9},
    }
    text = evidence_table({"summary": summary})
    assert "| NVIDIA-H200 | 3 | 5.0% | 20.0% | -1.0% | 5.0% | 20.0% | -1.0% |" in text
    assert text.endswith("picked in 9 of 10 groups (90.0%).")


def test_a_part_that_nobody_makes_is_left_as_it_is() -> None:
    page = "".join(
        f"<!-- computed: {name} -->\n{body}\n<!-- end of {name} -->\n"
        for name, body in (("one", "old"), ("two", "kept"))
    )
    assert with_parts(page, {"one": lambda: "new"}) == page.replace("old", "new")


def test_what_is_out_of_scope_is_named() -> None:
    text = PAGES["planning.md"].partition("## Out of scope")[2]
    for name in ("Groq", "Cerebras", "compute-in-memory", "TensorRT-LLM"):
        assert name in text
    assert "measured elsewhere, not predicted" in PAGES["performance-claims.md"]
