"""A local model hub that the real `huggingface_hub` client downloads from through `HF_ENDPOINT`.

Why: `hf://…` sources, commits, gated models and the failures of the real Hub must be provable without the
network and without mocks inside the client. It serves what is in a folder, plus published config.json
files.
It must never answer in a way that the real Hub would not: clients are to be tested, not this server.
"""

from __future__ import annotations

from e2e.hub.faults import Fault
from e2e.hub.server import Hub

__all__ = ["Fault", "Hub"]
