"""All hybrid and state space families under one name.

Models whose layers keep a state of fixed size, alone or among attention layers. Each family is a file of its
own; this one only collects them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.families.hybrid import (
    falcon,
    granite,
    jamba,
    kimi,
    lfm,
    lightning,
    mamba,
    nemotron,
    qwen,
    zamba,
)

READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Anatomy]]] = {
    **mamba.READERS,
    **jamba.READERS,
    **nemotron.READERS,
    **granite.READERS,
    **qwen.READERS,
    **falcon.READERS,
    **lfm.READERS,
    **zamba.READERS,
    **kimi.READERS,
    **lightning.READERS,
}
"""The architectures of these files and their readers."""
