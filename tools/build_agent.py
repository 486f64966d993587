"""Builds the agent's zipapp: ``python -m tools.build_agent OUT.pyz``.

The same sources give the same bytes on every machine, so that an image layer or a content hash changes only
when the agent does: entries are sorted and stored as they are (compressors differ), times and modes are
fixed, and only sources and data tables go in.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "runtime" / "stowage_runtime"
_SUFFIXES = (".py", ".json")
_SHEBANG = b"#!/usr/bin/env python3\n"
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16
_MAIN = b"import sys\n\nfrom stowage_runtime.cli import main\n\nsys.exit(main())\n"


def build_agent(target: Path) -> None:
    """Write the zipapp; the file appears whole or not at all. Raises OSError."""
    entries = {"__main__.py": _MAIN}
    for path in PACKAGE.rglob("*"):
        if path.suffix in _SUFFIXES and "__pycache__" not in path.parts:
            entries[f"{PACKAGE.name}/{path.relative_to(PACKAGE).as_posix()}"] = path.read_bytes()
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_SHEBANG)
            with zipfile.ZipFile(file, "w") as archive:
                for name in sorted(entries):
                    info = zipfile.ZipInfo(name, _TIMESTAMP)
                    info.create_system = 3
                    info.external_attr = _MODE
                    archive.writestr(info, entries[name])
        Path(temporary).chmod(0o755)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def main(arguments: list[str]) -> int:
    """Build where the only argument says."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m tools.build_agent OUT.pyz", file=sys.stderr)
        return 2
    try:
        build_agent(Path(arguments[0]).absolute())
    except OSError as error:
        print(f"The agent could not be built: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
