"""What vLLM's KV cache manager makes of a whole model: its own layers, built on the meta device, and its own groups.

Run in an environment with vLLM's CPU build, never in the project's own; it imports nothing from this project:

    python kv_of_model.py FOLDER '{"without_quantization": true}'

FOLDER holds a config.json. The model is built as in `parameter_bytes.py`, every layer is asked for its cache, and one
line of JSON says what the CPU backend (blocks of 128 tokens) would print for a given number of bytes.
"""

# mypy: ignore-errors
from __future__ import annotations

import contextlib
import io
import json
import sys
from collections import Counter

import parameter_bytes
from vllm import __version__
from vllm.config import set_current_vllm_config
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.platforms import current_platform
from vllm.v1.core import kv_cache_utils
from vllm.v1.core.single_type_kv_cache_manager import register_all_kvcache_specs
from vllm.v1.kv_cache_interface import AttentionSpec
from vllm.v1.worker.utils import customize_attention_spec

KV_BYTES = 1 << 40


def main(folder: str, layout: dict) -> None:
    config, caches = build(folder, layout)
    config.cache_config.kv_cache_layout = "LBHNC"
    register_all_kvcache_specs(config)
    found = Counter(describe(spec) for spec in caches.values())
    configs = kv_cache_utils.get_kv_cache_configs(config, [dict(caches)], [KV_BYTES])
    scheduler = kv_cache_utils.generate_scheduler_kv_cache_config(configs)
    tokens, concurrency = kv_cache_utils.get_kv_cache_capacity(config, scheduler)
    answer = {
        "vllm": __version__,
        "max_model_len": config.model_config.max_model_len,
        "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
        "max_num_seqs": config.scheduler_config.max_num_seqs,
        "kv_bytes": KV_BYTES,
        "num_blocks": configs[0].num_blocks,
        "groups": len(configs[0].kv_cache_groups),
        "tokens": tokens,
        "max_concurrency": concurrency,
        "caches": dict(sorted(found.items())),
    }
    print(json.dumps(answer))


def build(folder: str, layout: dict):
    """Build the model, and ask its layers for their caches."""
    built = []
    initialize = parameter_bytes.initialize_model

    def keep(config):
        built.append(config)
        return initialize(config)

    parameter_bytes.initialize_model = keep
    with contextlib.redirect_stdout(io.StringIO()):
        parameter_bytes.main(folder, layout, names=False)
    config = built[0]
    with set_current_vllm_config(config):
        current_platform.update_block_size_for_backend(config)
        caches = dict(cached(config))
    return config, caches


def cached(config):
    """Give each layer that keeps a cache with its specification, as the model runner collects them."""
    for name, layer in config.compilation_config.static_forward_context.items():
        if not isinstance(layer, AttentionLayerBase) or getattr(layer, "kv_sharing_target_layer_name", None):
            continue
        spec = layer.get_kv_cache_spec(config)
        if isinstance(spec, AttentionSpec):
            spec = customize_attention_spec(layer.get_attn_backend(), spec)
        if spec is not None:
            yield name, spec


def describe(spec) -> str:
    """Give kind, tokens of a block, bytes of a page, and window or chunk."""
    span = getattr(spec, "sliding_window", None) or getattr(spec, "attention_chunk_size", None) or 0
    return f"{type(spec).__name__} {spec.block_size} {spec.page_size_bytes} {span}"


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
