"""The machine's real files, as the view that `root_plan` asks for. It only looks and never writes."""

from __future__ import annotations

import os
import stat


class HostFiles:
    """Answers what lies at a path of this machine (see `root_plan.HostView`)."""

    def kind(self, path: str) -> str | None:
        """Return `dir`, `file` (anything else that can be bound), `link`, or None where there is nothing."""
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            return None
        if stat.S_ISLNK(mode):
            return "link"
        return "dir" if stat.S_ISDIR(mode) else "file"

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a directory."""
        return sorted(os.listdir(path))

    def target(self, path: str) -> str:
        """Return what a symbolic link says."""
        return os.readlink(path)
