"""SwiftKV checkpoints: recognised and refused, since they need a plugin that changes the engine's memory.

Later layers compute their keys and values from the hidden state of an earlier one and may share caches. The
engine cannot load them alone; the plugin pins releases of the engine and brings model code of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.config_fields import UnsupportedFeature


def refuse_swiftkv(config: Mapping[str, Any]) -> Anatomy:
    """Raise UnsupportedFeature, naming the plugin and what config.json says about the layers."""
    kept, total = config.get("num_key_value_layers"), config.get("num_hidden_layers")
    raise UnsupportedFeature(
        f"This is a SwiftKV checkpoint (num_key_value_layers: {kept} of {total} layers); it needs the plugin "
        "arctic-inference (Snowflake ArcticInference), whose memory is not modelled."
    )


_ARCHITECTURES: Final = ("LlamaSwiftKVForCausalLM", "Qwen2SwiftKVForCausalLM", "Qwen3SwiftKVForCausalLM")

READERS: Final = dict.fromkeys(_ARCHITECTURES, refuse_swiftkv)
"""The architectures of this file and their readers, which all refuse."""
