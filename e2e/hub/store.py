"""What the hub has: the folders under its root, and published configurations behind them.

Why: a test makes a model by writing a folder and a new commit by editing it, while the server runs.
Layout: `ROOT/org/name/` is the branch `main`; `ROOT/org/name@REVISION/` is another branch or tag of the
same repository.
It must never serve a path outside its root.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.hub.repository import Snapshot, snapshot_of_folder

MAIN = "main"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Store:
    """Looks repositories up anew on every call, so that changes on disk show at once."""

    root: Path
    published: Callable[[str], Snapshot | None]
    """Answers a repository that is not under `root` (the catalogue of published configurations)."""

    def revisions(self, repo_id: str) -> Mapping[str, Snapshot]:
        """Snapshots by branch or tag; empty if there is no such repository."""
        if any(not _NAME.fullmatch(part) for part in repo_id.split("/")):
            return {}
        found = {}
        main = self.root / repo_id
        if main.is_dir():
            found[MAIN] = snapshot_of_folder(main)
        for folder in sorted(main.parent.glob(f"{main.name}@*")):
            found[folder.name.partition("@")[2]] = snapshot_of_folder(folder)
        if not found and (snapshot := self.published(repo_id)) is not None:
            found[MAIN] = snapshot
        return found

    def resolve(self, repo_id: str, revision: str) -> Snapshot | None:
        """Return the snapshot that a branch, tag or commit names; None if there is none."""
        revisions = self.revisions(repo_id)
        if revision in revisions:
            return revisions[revision]
        return next((snapshot for snapshot in revisions.values() if snapshot.commit == revision), None)
