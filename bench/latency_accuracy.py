"""How well the performance model predicts latencies of vLLM that somebody measured.

    python bench/latency_accuracy.py [--cases FILE.jsonl --models DIR] [--json OUT]

Without --cases: the aggregated vLLM rows that ship inside the installed wheel aiconfigurator-core. FILE has one
measured run a line, DIR one folder with a config.json for each model (`<org>--<name>`, and `index.json` from model
id to folder). Every case is answered, or counted as unanswered with the reason.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.latency.case import Case, read_cases
from bench.latency.models import LatencyModels
from bench.latency.prediction import Answer, answer, unanswered
from bench.latency.report import show, text_of
from bench.latency.score import summary
from bench.latency.silicon import model_configs_path, silicon_cases, silicon_path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=Path, metavar="FILE")
    parser.add_argument("--models", type=Path, metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write cases and summary as JSON")
    parser.add_argument("--brief", action="store_true", help="print scores only")
    options = parser.parse_args(arguments)
    if (options.cases is None) != (options.models is None):
        parser.error("--cases and --models go together")
    console = Console(width=None if sys.stdout.isatty() else 200)
    aside: tuple[Case, ...] = ()
    try:
        cases, models, aside = _given(options) if options.cases else _shipped(console)
    except (OSError, ValueError, ModuleNotFoundError) as problem:
        print(f"{parser.prog}: {problem}", file=sys.stderr)
        return 2
    answers = [_answered(case, models) for case in cases]
    show(answers, console, each=not options.brief)
    if aside:
        everything = summary([*answers, *(_answered(case, models) for case in aside)])
        for name in ("tpot_ms", "ttft_ms"):
            console.print(f"with the excluded rows, {name}: {text_of(everything[name])}")
    if options.json is not None:
        result = {"cases": [entry.as_json() for entry in answers], "summary": summary(answers)}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def _answered(case: Case, models: LatencyModels) -> Answer:
    """Predict one case; a bug in one costs that one, is named, and counts as unanswered."""
    try:
        return answer(case, models)
    except Exception as bug:
        return unanswered(case, f"failed with {type(bug).__name__}: {bug}")


def _given(options: argparse.Namespace) -> tuple[tuple[Case, ...], LatencyModels, tuple[Case, ...]]:
    return read_cases(options.cases), LatencyModels(options.models), ()


def _shipped(console: Console) -> tuple[tuple[Case, ...], LatencyModels, tuple[Case, ...]]:
    silicon = silicon_cases(silicon_path())
    merged = sum(int(case.row["repeats"]) for case in silicon.cases)
    console.print(f"{merged} rows, repeats merged to {len(silicon.cases)} cases; excluded by rule:")
    for rule, number in Counter(silicon.excluded.values()).items():
        console.print(
            f"  {number} because {rule}: {', '.join(k for k, v in silicon.excluded.items() if v == rule)}"
        )
    if not silicon.excluded:
        console.print("  none")
    return silicon.cases, LatencyModels(model_configs_path()), silicon.set_aside


if __name__ == "__main__":
    raise SystemExit(main())
