"""A process that has vLLM loaded and answers question after question: loading takes far longer than answering."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

_HERE = Path(__file__).parent
STAND_INS = {"PYTHONPATH": str(_HERE / "stand_ins")}
"""Variables with which modules that the CPU build lacks are found."""


class VllmProcess:
    """`parameter_bytes.py --serve` in an environment with vLLM's CPU build; ends with its context."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [str(python), str(_HERE / "parameter_bytes.py"), "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | STAND_INS,
        )

    def __enter__(self) -> VllmProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def ask(self, folder: Path, layout: dict[str, Any]) -> dict[str, Any]:
        """Ask what one rank of this layout holds; {"error": sentence} where vLLM refuses it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(folder), layout]) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"error": "vLLM ended"}')
        return found
