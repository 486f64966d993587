"""What the multi-call binary is built from, and the name of its place in the cache.

The cache key covers every input that this repository fixes: main.go, go.mod (which names the Go release
that is needed), go.sum and the flags. The Go toolchain that happens to build it is left out on purpose, so
that a cached binary is found on a machine that has no Go. This module must never write anything.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BINARY_NAME = "stowage-controlplane"
_VERSION_PACKAGE = "k8s.io/component-base/version"


def cache_root(environment: Mapping[str, str]) -> Path:
    """Return `$XDG_CACHE_HOME/stowage`, by default `~/.cache/stowage`."""
    base = environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME") or Path.home(), ".cache")
    return Path(base) / "stowage"


@dataclass(frozen=True, slots=True)
class GoModule:
    """The Go module in `directory`: `main.go`, `go.mod` and `go.sum`."""

    directory: Path

    @classmethod
    def own(cls) -> GoModule:
        """Return the module of this repository."""
        return cls(Path(__file__).resolve().parent)

    @property
    def kubernetes_version(self) -> str:
        """The pinned Kubernetes release, as `v1.36.2`; all else is derived from this line of go.mod."""
        return self._find(r"^\s*k8s\.io/kubernetes (v1\.\d+\.\d+)$")

    @property
    def go_version(self) -> tuple[int, ...]:
        """The oldest Go release that builds it, as `(1, 26, 0)`."""
        return tuple(int(part) for part in self._find(r"^go (\d+\.\d+(?:\.\d+)?)$").split("."))

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of `go build`: reproducible, and stamped so that `kubectl version` tells the truth."""
        major, minor, _ = self.kubernetes_version.removeprefix("v").split(".")
        stamp = {
            "gitVersion": self.kubernetes_version,
            "gitMajor": major,
            "gitMinor": minor,
            "gitCommit": "stowage",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
        }
        variables = [f"-X {_VERSION_PACKAGE}.{name}={value}" for name, value in stamp.items()]
        return ("-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", " ".join(["-s -w", *variables]))

    @property
    def key(self) -> str:
        """The name of this build's folder in the cache: 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for name in ("main.go", "go.mod", "go.sum"):
            content = (self.directory / name).read_bytes()
            digest.update(f"{name} {len(content)}\n".encode() + content)
        digest.update(repr((self.flags, platform.system(), platform.machine())).encode())
        return digest.hexdigest()[:16]

    def cached_binary(self, environment: Mapping[str, str]) -> Path:
        """Return where the built file lies, whether or not it is there yet."""
        return cache_root(environment) / "controlplane" / self.key / BINARY_NAME

    def _find(self, pattern: str) -> str:
        text = (self.directory / "go.mod").read_text()
        match = re.search(pattern, text, re.MULTILINE)
        if match is None:
            raise ValueError(f"{self.directory / 'go.mod'}: no line matches {pattern}")
        return match[1]
