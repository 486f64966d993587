"""One repository of the hub at one commit: its files, their object ids and the commit that follows from them.

Why: clients cache by commit and ETag, so both must depend on nothing but the content: the same model is the
same commit on every machine, and an edited file is a new one.
It must never read a file whole: weights are hashed and served in pieces.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

LFS_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt")
"""Files that the real Hub keeps in large-file storage and identifies by SHA-256."""

_PIECE_BYTES = 1 << 20
_LFS_POINTER_BYTES = 134


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file: its size, object ids, and where its bytes are."""

    size_bytes: int
    sha256: str
    git_oid: str
    lfs: bool
    source: Path | bytes

    @property
    def etag(self) -> str:
        """What the Hub answers as ETag: the SHA-256 of large files, the git object id of others."""
        return self.sha256 if self.lfs else self.git_oid

    def open(self) -> BinaryIO:
        """Return the content as a binary stream."""
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")

    def lfs_pointer(self) -> dict[str, object]:
        """Return the entry that marks a large file in listings."""
        return {
            "oid": self.sha256,
            "sha256": self.sha256,
            "size": self.size_bytes,
            "pointerSize": _LFS_POINTER_BYTES,
        }


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All files of a repository at one commit (40 hexadecimal digits, derived from names and contents)."""

    commit: str
    files: Mapping[str, HubFile]


def snapshot_of_folder(folder: Path) -> Snapshot:
    """Return the snapshot of a folder; names that begin with a dot are not part of it."""
    return _snapshot({name: _file_of_path(name, path) for name, path in _walk(folder)})


def snapshot_of_contents(contents: Mapping[str, bytes]) -> Snapshot:
    """Return the snapshot of files that exist in memory only."""
    return _snapshot({name: _file(name, content, len(content)) for name, content in contents.items()})


def _snapshot(files: Mapping[str, HubFile]) -> Snapshot:
    digest = hashlib.sha1(usedforsecurity=False)
    for name, file in sorted(files.items()):
        digest.update(f"{name}\0{file.sha256}\0".encode())
    return Snapshot(digest.hexdigest(), dict(sorted(files.items())))


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            yield relative.as_posix(), path


def _file_of_path(name: str, path: Path) -> HubFile:
    status = path.stat()
    return _hashed_path(name, path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _hashed_path(name: str, path: Path, size_bytes: int, _mtime_ns: int) -> HubFile:
    return _file(name, path, size_bytes)


def _file(name: str, source: Path | bytes, size_bytes: int) -> HubFile:
    sha256 = hashlib.sha256()
    git = hashlib.sha1(f"blob {size_bytes}\0".encode(), usedforsecurity=False)
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            sha256.update(piece)
            git.update(piece)
    return HubFile(size_bytes, sha256.hexdigest(), git.hexdigest(), name.endswith(LFS_SUFFIXES), source)
