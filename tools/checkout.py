"""Links a checkout into an environment, so that its packages and commands run from the working tree.

Why: an editable install by the build backend would need the backend, its dependencies and a complete tree
at that moment; a `.pth` file, the metadata and two small scripts need nothing and do the same.
It must never copy code of the checkout: the working tree is what runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SCRIPT = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import sys

from {module} import {function}

sys.exit({function}())
"""


def link(environment: Path, checkout: Path, project: Mapping[str, Any]) -> None:
    """Make `checkout`, described by its `[project]` table, importable in `environment`."""
    (site_packages,) = (environment / "lib").glob("python3*/site-packages")
    folders = (checkout / "operator", checkout / "runtime", checkout)
    paths = "".join(f"{folder}\n" for folder in folders)
    (site_packages / "stowage-checkout.pth").write_text(paths, encoding="utf-8")
    _write_metadata(site_packages, project)
    for name, target in project["scripts"].items():
        module, _, function = target.partition(":")
        script = environment / "bin" / name
        # A shebang line may not be long or have spaces; sh and Python both read this file.
        python = environment / "bin" / "python"
        script.write_text(_SCRIPT.format(python=python, module=module, function=function), encoding="utf-8")
        script.chmod(0o755)


def _write_metadata(site_packages: Path, project: Mapping[str, Any]) -> None:
    name, version = project["name"], project["version"]
    folder = site_packages / f"{name}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    entry_points = "".join(f"{key} = {value}\n" for key, value in project["scripts"].items())
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "INSTALLER": "stowage-bootstrap\n",
        "entry_points.txt": f"[console_scripts]\n{entry_points}",
    }
    record = "".join(f"{folder.name}/{file},,\n" for file in (*files, "RECORD"))
    for file, text in {**files, "RECORD": record}.items():
        (folder / file).write_text(text, encoding="utf-8")
