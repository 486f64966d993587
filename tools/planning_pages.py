"""Write the computed parts of docs/planning.md and docs/performance-claims.md, or with --check say how they differ.

A part stands between `<!-- computed: NAME -->` and `<!-- end of NAME -->`; the prose around it is written by hand. The
evidence comes from a run of bench/latency_accuracy.py (`--evidence OUT` of its `--json OUT`) and is left as it is
without one, since that run takes minutes.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from stowage.commands.plan.picture import picture
from stowage.planning.explain.table import plan_table
from stowage.planning.plan import plan
from tools.generated import run
from tools.performance_claims import claims_table
from tools.planning_examples import (
    EXAMPLES,
    ROOT,
    answered,
    blackwell_sentences,
    examples_table,
    levers_table,
    markdown,
    nodes_with,
)

PLANNING: Final = ROOT / "docs" / "planning.md"
CLAIMS: Final = ROOT / "docs" / "performance-claims.md"
PICTURE: Final = ROOT / "docs" / "plan.svg"
EVIDENCE: Final = "evidence"
_SHOWN: Final = 7
_PART: Final = re.compile(r"(<!-- computed: (\w+) -->\n)(.*?)(<!-- end of \2 -->)", re.DOTALL)


def parts(evidence: Mapping[str, Any] | None = None) -> dict[str, Callable[[], str]]:
    """Give what makes each part, by its name."""
    found: dict[str, Callable[[], str]] = {
        "examples": examples_table,
        "levers": levers_table,
        "blackwell": blackwell_sentences,
        "shown": shown_plan,
        "efficiencies": efficiencies_table,
        "claims": claims_table,
    }
    if evidence is not None:
        found[EVIDENCE] = lambda: evidence_table(evidence)
    return found


def with_parts(text: str, makers: Mapping[str, Callable[[], str]]) -> str:
    """Put computed parts into a page; a part that nobody makes is left as it is."""

    def computed(match: re.Match[str]) -> str:
        maker = makers.get(match[2])
        return match[0] if maker is None else f"{match[1]}{maker()}\n{match[4]}"

    return _PART.sub(computed, text)


def part_of(text: str, name: str) -> str:
    """Give a part of a page as it stands there."""
    return next((match[3].rstrip("\n") for match in _PART.finditer(text) if match[2] == name), "")


def shown_plan() -> str:
    """Give what `stowage plan` prints for one of the examples."""
    request, _ = answered(EXAMPLES[_SHOWN])
    result = plan(request, nodes_with(EXAMPLES[_SHOWN].gpus))
    return f"```\n{plan_table(request, result)}\n```"


def drawn_plan() -> str:
    """Give what `stowage plan --picture` draws for the same example."""
    request, found = answered(EXAMPLES[_SHOWN])
    return picture(request.profile.source, found)


def efficiencies_table() -> str:
    """Give the table of the numbers of the step model."""
    text = files("stowage.performance").joinpath("efficiencies.toml").read_text(encoding="utf-8")
    rows = [("number", "value", "fitted", "what it is")]
    rows += [
        (name, f"{row['value']:g}", "yes" if row["fitted"] else "no", str(row["unit"]))
        for name, row in tomllib.loads(text).items()
        if name != "sources"
    ]
    return markdown(rows)


def evidence_table(bench: Mapping[str, Any]) -> str:
    """Give the scores of a run of bench/latency_accuracy.py."""
    scores = bench["summary"]
    rows = [("measured on", "cases", "TPOT median", "p90", "signed", "TTFT median", "p90", "signed")]
    for name, each in (("all", scores), *scores["by_gpu"].items()):
        cells = [
            f"{each[kind][field]:{'+' if field == 'signed' else ''}.1%}"
            for kind in ("tpot_ms", "ttft_ms")
            for field in ("median", "p90", "signed")
        ]
        rows.append((name, str(each["tpot_ms"]["number"]), *cells))
    pick = scores["fastest_layout"]
    picked = f"{pick['picked']} of {pick['groups']} groups ({pick['share']:.1%})"
    return f"{markdown(rows)}\n\nThe fastest tensor parallel size is picked in {picked}."


def main(arguments: list[str] | None = None) -> int:
    """Write or check both pages and the picture."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    evidence = None
    if "--evidence" in given:
        place = given.index("--evidence")
        evidence = json.loads(Path(given[place + 1]).read_text(encoding="utf-8"))
        del given[place : place + 2]
    makers = parts(evidence)
    outputs = {path: _maker(path, makers) for path in (PLANNING, CLAIMS)} | {PICTURE: drawn_plan}
    return run(outputs, given, description="Write the computed parts of the planning pages.")


def _maker(path: Path, makers: Mapping[str, Callable[[], str]]) -> Callable[[], str]:
    return lambda: with_parts(path.read_text(encoding="utf-8"), makers)


if __name__ == "__main__":
    sys.exit(main())
