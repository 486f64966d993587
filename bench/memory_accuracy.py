"""How well the memory model predicts start-ups of vLLM that somebody measured.

    python bench/memory_accuracy.py --cases FILE.jsonl --models DIR [--json OUT] [--leave-one-source-out]

FILE has one measured start-up a line, DIR one folder with a config.json for each model (`<org>--<name>`, and
`index.json` from model id to folder). Every case is answered, or counted as unanswered with the reason.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.accuracy.case import read_cases
from bench.accuracy.leave_out import CONSTANTS, report, starts
from bench.accuracy.models import ModelFolder
from bench.accuracy.prediction import answer
from bench.accuracy.report import show
from bench.accuracy.score import summary


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write cases and summary as JSON")
    parser.add_argument(
        "--leave-one-source-out", action="store_true", help="check the constants that logs were asked for"
    )
    options = parser.parse_args(arguments)
    try:
        cases = read_cases(options.cases)
    except (OSError, ValueError) as problem:
        print(f"{parser.prog}: {problem}", file=sys.stderr)
        return 2
    models = ModelFolder(options.models)
    answers = [answer(case, models) for case in cases]
    show(answers, Console(width=None if sys.stdout.isatty() else 200))
    if options.leave_one_source_out:
        known = starts(cases, models)
        print("\n".join(line for constant in CONSTANTS for line in report(constant, known)))
    if options.json is not None:
        core = [entry for entry in answers if entry.core]
        result = {
            "cases": [entry.as_json() for entry in answers],
            "summary": {"core": summary(core), "all": summary(answers)},
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
