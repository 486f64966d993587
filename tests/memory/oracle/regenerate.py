"""Ask vLLM's own code again for every golden value, or add layouts of a model: `make golden`.

    python -m tests.memory.oracle.regenerate [MODEL ...] [--add LAYOUT_JSON ...]

A file `golden/MODEL.json` is a list of layouts with what vLLM creates for each; MODEL is a folder of
`tests/fixtures/models`. Without arguments all files are made anew, and those of states (`states.json`) and of KV
capacity (`regenerate_kv.py`) too. STOWAGE_VLLM_ENV names an environment with vLLM's CPU build, which `make golden`
makes and sets.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.memory.oracle.vllm_process import STAND_INS, VllmProcess

_HERE = Path(__file__).parent
_GOLDEN = _HERE / "golden"
_MODELS = _HERE.parents[1] / "fixtures" / "models"
_LAYOUT: dict[str, Any] = {
    "tensor_parallel_size": 1,
    "pipeline_parallel_size": 1,
    "stage": 0,
    "expert_parallel": False,
    "without_quantization": False,
    "lm_head_bias": False,
}


def main() -> int:
    """Regenerate the asked files; exit code 1 where vLLM refuses a layout."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", help="folders of tests/fixtures/models; all that have a file")
    parser.add_argument(
        "--add", action="append", default=[], help='a layout like {"tensor_parallel_size": 2}'
    )
    options = parser.parse_args()
    python = Path(os.environ["STOWAGE_VLLM_ENV"]) / "bin" / "python"
    added = [{**_LAYOUT, **json.loads(text)} for text in options.add]
    models = options.models or sorted(path.stem for path in _GOLDEN.glob("*.json"))
    with VllmProcess(python) as vllm:
        failures = sum(_weights(vllm, model, added) for model in models)
    if not options.models and not options.add:
        failures += not _states(python)
        failures += subprocess.run([sys.executable, str(_HERE / "regenerate_kv.py")], check=False).returncode
    return 1 if failures else 0


def _weights(vllm: VllmProcess, model: str, added: list[dict[str, Any]]) -> int:
    """Ask for the layouts that a model has rows of, or for those to be added; how many vLLM refuses."""
    path = _GOLDEN / f"{model}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    layouts = added or [{key: row.get(key, default) for key, default in _LAYOUT.items()} for row in known]
    answers = [answer for layout in layouts if (answer := _ask(vllm, model, layout)) is not None]
    rows = (known if added else []) + answers
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return len(layouts) - len(answers)


def _states(python: Path) -> bool:
    """Ask for the states of the models that have rows; whether vLLM answered."""
    path = _HERE / "states.json"
    models = dict.fromkeys(row["model"] for row in json.loads(path.read_text(encoding="utf-8")))
    command = [str(python), str(_HERE / "state_bytes.py"), *(str(_MODELS / model) for model in models)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | STAND_INS)
    if done.returncode:
        print(f"states: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return False
    path.write_text(done.stdout, encoding="utf-8")
    print(f"states of {len(models)} models", flush=True)
    return True


def _ask(vllm: VllmProcess, model: str, layout: dict[str, Any]) -> dict[str, Any] | None:
    found = vllm.ask(_MODELS / model, layout)
    if "error" in found:
        print(f"{model} {layout}: {found['error']}", file=sys.stderr)
        return None
    answer: dict[str, Any] = found["answer"]
    print(f"{model} {layout}: {answer['bytes']:,} bytes in {answer['tensors']} tensors", flush=True)
    return {**layout, **answer}


if __name__ == "__main__":
    raise SystemExit(main())
