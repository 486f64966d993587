"""The architecture of a tiny model: its config.json and the names and shapes of its tensors.

Why: the memory model, the planner and a real engine must agree on what a checkpoint of each supported
family holds; this says it independently of them, in the names that the published checkpoints use.
It must never import from the operator: it is what the operator is checked against.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.tinymodel import tokenizer
from e2e.tinymodel.checkpoint import Content, write_checkpoint

Shape = tuple[int, ...]

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mistral": "MistralForCausalLM",
    "phi3": "Phi3ForCausalLM",
}
"""`model_type` of config.json → class name that an engine looks up."""

_BF16_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """One tiny model. Sizes are named as in config.json; `ValueError` where no such model can exist.

    With `noise_permille` the weights are off by noise of so many thousandths of each tensor's spread: the same model,
    only less exact, as a quantised one is. `extra_config` is merged into config.json last (`{"standin": {…}}` steers a
    stand-in engine).
    """

    family: str = "llama"
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 32
    intermediate_size: int = 512
    vocab_size: int = tokenizer.VOCABULARY_SIZE
    max_position_embeddings: int = 2048
    tie_word_embeddings: bool = False
    shards: int = 1
    seed: int = 0
    noise_permille: int = 0
    extra_config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family {self.family!r} is unknown: use one of {', '.join(sorted(FAMILIES))}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        if self.vocab_size < tokenizer.VOCABULARY_SIZE:
            raise ValueError(
                f"vocab_size {self.vocab_size} is below the tokenizer's {tokenizer.VOCABULARY_SIZE}"
            )
        if self.family == "phi3" and self.head_dim * self.num_attention_heads != self.hidden_size:
            raise ValueError("phi3 derives head_dim: hidden_size must be head_dim × num_attention_heads")

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors as stored (bfloat16)."""
        return sum(math.prod(shape) for shape in self.tensors().values()) * _BF16_BYTES

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache that one token takes in bfloat16: keys and values of every layer and KV head."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim * _BF16_BYTES

    def config(self) -> dict[str, Any]:
        """Return the content of config.json."""
        config: dict[str, Any] = {
            "architectures": [FAMILIES[self.family]],
            "model_type": self.family,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_position_embeddings,
            "tie_word_embeddings": self.tie_word_embeddings,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "rms_norm_eps": 1e-05,
            "rope_theta": 10000.0,
            "attention_dropout": 0.0,
            "bos_token_id": None,
            "eos_token_id": tokenizer.END_TOKEN_ID,
            "pad_token_id": tokenizer.END_TOKEN_ID,
            "torch_dtype": "bfloat16",
            "use_cache": True,
        }
        if self.family in ("llama", "qwen3"):
            config["attention_bias"] = False
        if self.family in ("mistral", "phi3"):
            config["sliding_window"] = None
        if self.family in ("qwen2", "qwen3"):
            config |= {"use_sliding_window": False, "sliding_window": None}
        if self.family == "phi3":
            del config["head_dim"]
            config["original_max_position_embeddings"] = self.max_position_embeddings
        return config | dict(self.extra_config)

    def tensors(self) -> dict[str, Shape]:
        """Shape of every tensor of the checkpoint by its name."""
        tensors: dict[str, Shape] = {"model.embed_tokens.weight": (self.vocab_size, self.hidden_size)}
        for index in range(self.num_hidden_layers):
            for name, shape in self._layer().items():
                tensors[f"model.layers.{index}.{name}"] = shape
        tensors["model.norm.weight"] = (self.hidden_size,)
        if not self.tie_word_embeddings:
            tensors["lm_head.weight"] = (self.vocab_size, self.hidden_size)
        return tensors

    def write(self, directory: Path) -> None:
        """Write the model as a Hub repository holds it; the files are the same bytes on every machine."""
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "config.json", self.config())
        write_json(directory / "generation_config.json", {"eos_token_id": tokenizer.END_TOKEN_ID})
        for name, content in tokenizer.files(self.max_position_embeddings).items():
            write_json(directory / name, content)
        content = Content(self.seed, self.noise_permille)
        write_checkpoint(directory, self.tensors(), content, shards=self.shards)

    def _layer(self) -> dict[str, Shape]:
        layer: dict[str, Shape] = {"input_layernorm.weight": (self.hidden_size,)}
        layer |= self._attention()
        layer["post_attention_layernorm.weight"] = (self.hidden_size,)
        if self.family == "phi3":
            layer["mlp.gate_up_proj.weight"] = (2 * self.intermediate_size, self.hidden_size)
        else:
            layer["mlp.gate_proj.weight"] = (self.intermediate_size, self.hidden_size)
            layer["mlp.up_proj.weight"] = (self.intermediate_size, self.hidden_size)
        layer["mlp.down_proj.weight"] = (self.hidden_size, self.intermediate_size)
        return layer

    def _attention(self) -> dict[str, Shape]:
        query, kv = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        attention: dict[str, Shape] = {"self_attn.o_proj.weight": (self.hidden_size, query)}
        if self.family == "phi3":
            attention["self_attn.qkv_proj.weight"] = (query + 2 * kv, self.hidden_size)
            return attention
        for letter, rows in (("q", query), ("k", kv), ("v", kv)):
            attention[f"self_attn.{letter}_proj.weight"] = (rows, self.hidden_size)
            if self.family == "qwen2":
                attention[f"self_attn.{letter}_proj.bias"] = (rows,)
        if self.family == "qwen3":
            attention["self_attn.q_norm.weight"] = (self.head_dim,)
            attention["self_attn.k_norm.weight"] = (self.head_dim,)
        return attention


def write_json(path: Path, content: object) -> None:
    """Write JSON in the one form.

    (indented, order as given, newline at the end) that keeps revisions stable.
    """
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
