"""Architectures that older engines serve and newer ones do not: they are sized, and say so in a note.

The last release that has each is in removed_architectures.toml. Sources: vLLM's model files of those releases
(`qwen.py`, `baichuan.py`, `mpt.py`, `phi3_small.py`); no engine of today can confirm them, parameter counts
of published models do.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files
from typing import Final

from stowage.model.anatomy import Anatomy
from stowage.model.config_fields import UnsupportedFeature, count, flag, mapping
from stowage.model.families import dense, native
from stowage.model.families.classic import read_falcon
from stowage.model.families.decoder import read_decoder
from stowage.model.families.recipe import Config, Norm, Recipe, Rotary

Reader = Callable[[Config], Anatomy]


@cache
def last_engines() -> Mapping[str, str]:
    """Give the last engine release that serves an architecture, for those that newer ones dropped."""
    text = files("stowage.model").joinpath("removed_architectures.toml").read_text(encoding="utf-8")
    releases: Mapping[str, str] = tomllib.loads(text)["last_engine"]
    return releases


def _qwen(config: Config) -> Config:
    """Halve the stated width, which counts gate and up together."""
    return {**config, "intermediate_size": count(config, "intermediate_size") // 2}


def _mpt(config: Config) -> Config:
    """Give the usual names to MPT's fields; positions are a bias by distance, nothing else was served."""
    attention = mapping(config, "attn_config")
    if attention and not flag(attention, "alibi"):
        raise UnsupportedFeature("An MPT model without ALiBi is not supported by any engine.")
    hidden, heads = count(config, "d_model"), count(config, "n_heads")
    return {
        **config,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": count(attention, "kv_n_heads", heads),
        "num_hidden_layers": count(config, "n_layers"),
        "intermediate_size": count(config, "expansion_ratio", 4) * hidden,
        "tie_word_embeddings": True,
        "with_bias": not flag(config, "no_bias", True),
    }


def _phi3_small(config: Config) -> Config:
    tied = flag(config, "tie_word_embeddings", True)
    inner = count(config, "ff_intermediate_size")
    return {**config, "intermediate_size": inner, "tie_word_embeddings": tied}


_QWEN: Final = Recipe(
    adapt=_qwen,
    layer="transformer.h.{}",
    embedding="transformer.wte",
    final_norm="transformer.ln_f",
    attention="attn",
    qkv="c_attn",
    qkv_parts=("c_attn",),
    output="c_proj",
    up_parts=("w2", "w1"),
    down="c_proj",
    norms=("ln_1", "ln_2"),
    qkv_bias=True,
    derived_head_dim=True,
    everywhere=True,
)
_BAICHUAN: Final = Recipe(qkv="W_pack", qkv_parts=("W_pack",), derived_head_dim=True, everywhere=True)
_ROTATING_BAICHUAN_SIZE: Final = 4096
"""Hidden size of the Baichuan models that rotate; the others are biased by distance (`baichuan.py`)."""
_MPT: Final = Recipe(
    adapt=_mpt,
    layer="transformer.blocks.{}",
    embedding="transformer.wte",
    final_norm="transformer.norm_f",
    attention="attn",
    qkv="Wqkv",
    qkv_parts=("Wqkv",),
    output="out_proj",
    mlp="ffn",
    up="up_proj",
    up_parts=("up_proj",),
    norms=("norm_1", "norm_2"),
    gated=False,
    qkv_bias="with_bias",
    output_bias="with_bias",
    up_bias="with_bias",
    down_bias="with_bias",
    derived_head_dim=True,
    rotary=Rotary.NOTHING,
    everywhere=True,
)
_PHI3_SMALL: Final = Recipe(
    adapt=_phi3_small,
    final_norm="model.final_layernorm",
    qkv="query_key_value",
    qkv_parts=("query_key_value",),
    output="dense",
    up="up_proj",
    up_parts=("up_proj",),
    norm=Norm.WEIGHT_AND_BIAS,
    qkv_bias=True,
    output_bias=True,
    up_bias=True,
    down_bias=True,
    derived_head_dim=True,
    everywhere=True,
)


def _read_baichuan(config: Config) -> Anatomy:
    rotates = count(config, "hidden_size") == _ROTATING_BAICHUAN_SIZE
    return read_decoder(config, _BAICHUAN if rotates else replace(_BAICHUAN, rotary=Rotary.NOTHING))


def _read_mpt(config: Config) -> Anatomy:
    kind = Norm.WEIGHT if flag(config, "no_bias", True) else Norm.WEIGHT_AND_BIAS
    return read_decoder(config, replace(_MPT, norm=kind))


def _read_refined_web(config: Config) -> Anatomy:
    """Read Falcon under the names that it was first published with."""
    names = {"n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_head_kv": "num_kv_heads"}
    usual = {names.get(name, name): value for name, value in config.items()}
    usual.setdefault("new_decoder_architecture", config.get("model_type") == "RefinedWeb")
    return read_falcon({**usual, "model_type": "falcon"})


def _removed(name: str, reader: Reader) -> Reader:
    """Make the reader add the note that newer engines refuse the model."""

    def read(config: Config) -> Anatomy:
        anatomy = reader(config)
        note = f"Engine releases after {last_engines()[name]} do not serve {name}."
        return replace(anatomy, notes=(*anatomy.notes, note))

    return read


_LLAMA: Final[Reader] = partial(dense.read_dense, family=dense.FAMILIES["LlamaForCausalLM"])
_READERS: Final[Mapping[str, Reader]] = {
    "AquilaModel": _LLAMA,
    "AquilaForCausalLM": _LLAMA,
    "BaiChuanForCausalLM": partial(read_decoder, recipe=_BAICHUAN),
    "BaichuanForCausalLM": _read_baichuan,
    "InternLMForCausalLM": _LLAMA,
    "MPTForCausalLM": _read_mpt,
    "MptForCausalLM": _read_mpt,
    "Phi3SmallForCausalLM": partial(read_decoder, recipe=_PHI3_SMALL),
    "QWenLMHeadModel": partial(read_decoder, recipe=_QWEN),
    "RWForCausalLM": _read_refined_web,
    "StableLMEpochForCausalLM": native.READERS["StableLmForCausalLM"],
    "TeleChatForCausalLM": native.READERS["TeleChat2ForCausalLM"],
    "XverseForCausalLM": _LLAMA,
}

READERS: Final[Mapping[str, Reader]] = {name: _removed(name, reader) for name, reader in _READERS.items()}
"""The architectures of this file and their readers."""
