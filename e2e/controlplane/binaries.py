"""Where the programs of the control plane come from, in a fixed order.

An existing cluster if asked for → TEST_ASSET_* and KUBEBUILDER_ASSETS (the conventions of
controller-runtime's envtest) → the own cache → a build → a failure that says what to do. A program that was
named explicitly and is not there is a failure, never a reason to go on to the next source.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.controlplane.go_module import GoModule

SERVERS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
PROGRAMS = (*SERVERS, "kubectl")
BUILD_HINT = "python -m e2e.controlplane build"
Builder = Callable[[], Path]


class BinariesMissing(Exception):
    """A program of the control plane was not found; the message says what to install or set."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """The command of each program (a path, or a path and the name of the part) and where they came from."""

    commands: Mapping[str, tuple[str, ...]]
    source: str

    def command(self, program: str) -> tuple[str, ...]:
        """Return the words that start `program`."""
        return self.commands[program]

    def to_record(self) -> dict[str, list[str]]:
        """Return the commands as JSON values."""
        return {name: list(words) for name, words in self.commands.items()}


@dataclass(frozen=True, slots=True)
class ExistingCluster:
    """A cluster that is there already and is asked for: its kubeconfig, and a kubectl."""

    kubeconfig: Path
    kubectl: tuple[str, ...]


def find(
    environment: Mapping[str, str], module: GoModule, build: Builder | None
) -> Binaries | ExistingCluster:
    """Find the programs in the documented order.

    `build` makes the multi-call binary and is called at most once; None means that building is out of the
    question here (a test run), so that a cold cache is a failure. Raises `BinariesMissing`.
    """
    named = _named_one_by_one(environment)
    if environment.get("USE_EXISTING_CLUSTER", "").lower() == "true":
        return _existing(environment, module, named)
    missing = [program for program in PROGRAMS if program not in named]
    if not missing:
        return Binaries(named, "TEST_ASSET_*")
    folder = environment.get("KUBEBUILDER_ASSETS")
    if folder:
        return Binaries({**_from_folder(Path(folder), missing), **named}, f"KUBEBUILDER_ASSETS={folder}")
    binary = module.cached_binary(environment)
    source = f"cache {binary}"
    if not binary.exists():
        if build is None:
            raise BinariesMissing(
                f"the control plane is not built yet (no {binary}); run `{BUILD_HINT}` (9 minutes, once), "
                "or set KUBEBUILDER_ASSETS, TEST_ASSET_* or USE_EXISTING_CLUSTER=true"
            )
        binary, source = build(), f"built from {module.directory}"
    return Binaries({**_multi_call(binary), **named}, source)


def asset_variable(program: str) -> str:
    """Return the envtest variable that names one program: `TEST_ASSET_KUBE_APISERVER`."""
    return "TEST_ASSET_" + re.sub(r"[^A-Z0-9]+", "_", program.upper())


def _named_one_by_one(environment: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    named: dict[str, tuple[str, ...]] = {}
    for program in PROGRAMS:
        variable = asset_variable(program)
        if value := environment.get(variable):
            if not os.access(value, os.X_OK):
                raise BinariesMissing(f"{variable}={value}: no executable file; correct it or unset it")
            named[program] = (value,)
    return named


def _from_folder(folder: Path, programs: list[str]) -> dict[str, tuple[str, ...]]:
    lacking = [program for program in programs if not os.access(folder / program, os.X_OK)]
    if lacking:
        variables = ", ".join(asset_variable(program) for program in lacking)
        raise BinariesMissing(
            f"KUBEBUILDER_ASSETS={folder}: lacks {', '.join(lacking)}; name them by {variables}, "
            f"or unset KUBEBUILDER_ASSETS and run `{BUILD_HINT}`"
        )
    return {program: (str(folder / program),) for program in programs}


def _existing(
    environment: Mapping[str, str], module: GoModule, named: Mapping[str, tuple[str, ...]]
) -> ExistingCluster:
    """Take the current kubeconfig; kubectl is the named one, else the one on PATH, else the cached one."""
    configured = environment.get("KUBECONFIG") or os.path.join(environment.get("HOME", ""), ".kube", "config")
    kubeconfig = Path(configured.split(os.pathsep)[0])
    if not kubeconfig.is_file():
        raise BinariesMissing(
            f"USE_EXISTING_CLUSTER=true, but there is no kubeconfig {kubeconfig}; set KUBECONFIG"
        )
    if "kubectl" in named:
        return ExistingCluster(kubeconfig, named["kubectl"])
    if on_path := shutil.which("kubectl", path=environment.get("PATH")):
        return ExistingCluster(kubeconfig, (on_path,))
    binary = module.cached_binary(environment)
    if not binary.exists():
        raise BinariesMissing(
            f"USE_EXISTING_CLUSTER=true, but there is no kubectl; install it or run `{BUILD_HINT}`"
        )
    return ExistingCluster(kubeconfig, (str(binary), "kubectl"))


def _multi_call(binary: Path) -> dict[str, tuple[str, ...]]:
    return {program: (str(binary), program) for program in PROGRAMS}
