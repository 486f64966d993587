"""All hybrid and state space families under one name.

Models whose layers keep a state of fixed size, alone or among attention layers. Each family is a file of its
own (`hybrid_*.py`); this one only collects them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.families import (
    hybrid_falcon,
    hybrid_granite,
    hybrid_jamba,
    hybrid_kimi,
    hybrid_lfm,
    hybrid_lightning,
    hybrid_mamba,
    hybrid_nemotron,
    hybrid_qwen,
    hybrid_zamba,
)

READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Anatomy]]] = {
    **hybrid_mamba.READERS,
    **hybrid_jamba.READERS,
    **hybrid_nemotron.READERS,
    **hybrid_granite.READERS,
    **hybrid_qwen.READERS,
    **hybrid_falcon.READERS,
    **hybrid_lfm.READERS,
    **hybrid_zamba.READERS,
    **hybrid_kimi.READERS,
    **hybrid_lightning.READERS,
}
"""The architectures of these files and their readers."""
