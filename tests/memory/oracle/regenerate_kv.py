"""Ask vLLM's own KV cache managers again for every golden capacity; `regenerate.py` does this too.

    python tests/memory/oracle/regenerate_kv.py [RELEASE ...] [MODEL ...]

A file `kv_golden/RELEASE.json` holds what that release makes of every case of `kv_cases.json`, and
`kv_models/MODEL.json` what the newest makes of the model's own layers. STOWAGE_VLLM_ENV names an environment with
vLLM's CPU build, which answers for its own release. Other releases are asked where STOWAGE_VLLM_TREES names a
folder with their unpacked wheels (`FOLDER/RELEASE/vllm`); without it their files stay.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_CASES = _HERE / "kv_cases.json"
_RELEASES = _HERE / "kv_golden"
_MODELS = _HERE / "kv_models"
_WEIGHTS = _HERE / "golden"
_FIXTURES = _HERE.parents[1] / "fixtures" / "models"


def regenerate(names: list[str]) -> int:
    """Ask for the given releases and models, or for all that can be asked; exit code 1 where one fails."""
    models = [name for name in names if (_FIXTURES / name).is_dir()]
    releases: list[str | None] = [name for name in names if name not in models]
    if not names:
        models = sorted(path.stem for path in _MODELS.glob("*.json"))
        releases = [None, *sorted(path.stem for path in _RELEASES.glob("*.json"))]
    failures = _ask_releases(releases) + sum(not _ask_model(model) for model in models)
    return 1 if failures else 0


def _ask_releases(releases: list[str | None]) -> int:
    trees = os.environ.get("STOWAGE_VLLM_TREES")
    failures = 0
    for release in releases:
        tree = Path(trees) / release if trees and release else None
        if release is not None and (tree is None or not (tree / "vllm").is_dir()):
            continue
        more = [] if tree is None else ["--tree", str(tree), str(release)]
        answer = _ask("kv_capacity.py", [str(_CASES), *more])
        failures += answer is None
        if answer is not None:
            _keep(_RELEASES / f"{answer['vllm']}.json", answer)
    return failures


def _ask_model(model: str) -> bool:
    answer = _ask("kv_of_model.py", [str(_FIXTURES / model), json.dumps(_layout(model))])
    if answer is not None:
        _keep(_MODELS / f"{model}.json", answer)
    return answer is not None


def _layout(model: str) -> dict[str, Any]:
    """Give what the CPU build needs to construct the model, as its golden weights say."""
    path = _WEIGHTS / f"{model}.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else [{}]
    return {"without_quantization": rows[0].get("without_quantization", False)}


def _keep(path: Path, answer: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    print(path.name, flush=True)


def _ask(script: str, arguments: list[str]) -> dict[str, Any] | None:
    python = Path(os.environ["STOWAGE_VLLM_ENV"]) / "bin" / "python"
    command = [str(python), str(_HERE / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{arguments}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


if __name__ == "__main__":
    raise SystemExit(regenerate(sys.argv[1:]))
