"""Mixture-of-experts decoders with one common skeleton: in what they differ from one another, as a table.

Fields and modules have different names, experts sit in all layers or some, are shared or not, biases and norms
exist or not, and some engines' models keep embedding and head on every pipeline stage. Sources: the engine's
model files (`vllm/model_executor/models/{qwen2_moe,qwen3_moe,mixtral,glm4_moe,minimax_m2,olmoe,phimoe,
ernie45_moe,exaone_moe,hy_v3}.py`, 0.32.0) and the class defaults of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from stowage.model.config_fields import BadField, count, flag
from stowage.model.families.moe_layers import Config, Router, indices, list_of


def _every_layer(_config: Config, _layer: int) -> bool:
    return True


def _no_shared(_config: Config) -> int:
    return 0


def _in_steps(config: Config, layer: int) -> bool:
    """Qwen: every decoder_sparse_step-th layer, except those that mlp_only_layers lists."""
    step = count(config, "decoder_sparse_step", 1)
    return layer not in indices(config, "mlp_only_layers") and (layer + 1) % step == 0


def _after_dense_ones(config: Config, layer: int) -> bool:
    """GLM: all but the first first_k_dense_replace layers."""
    first = config.get("first_k_dense_replace", 1)
    if type(first) is not int or first < 0:
        raise BadField("config.json has first_k_dense_replace that is not a whole number of at least 0.")
    return layer >= first


def _in_range(config: Config, layer: int) -> bool:
    """ERNIE: every moe_layer_interval-th layer from the start index to the end index."""
    start, end = config.get("moe_layer_start_index", 1), config.get("moe_layer_end_index", -1)
    if type(start) is not int or type(end) is not int:
        raise BadField("config.json has moe_layer_start_index or moe_layer_end_index that is not a number.")
    last = count(config, "num_hidden_layers") - 1 if end == -1 else end
    in_step = (layer + 1) % count(config, "moe_layer_interval", 1) == 0
    return flag(config, "use_moe", True) and in_step and start <= layer <= last


def _as_listed(config: Config, layer: int) -> bool:
    """EXAONE: as mlp_layer_types says, else all but the first first_k_dense_replace layers."""
    kinds = list_of(config, "mlp_layer_types", count(config, "num_hidden_layers"))
    return _after_dense_ones(config, layer) if kinds is None else kinds[layer] == "sparse"


def _shared_size(field: str, default: int = 0) -> Callable[[Config], int]:
    """Take the size of the shared expert from a field where 0 means that there is none."""
    return lambda config: 0 if config.get(field) == 0 else count(config, field, default)


def _shared_number(field: str, size: str = "moe_intermediate_size") -> Callable[[Config], int]:
    """Take the number of shared experts from a field; each has the size of a routed one."""
    return lambda config: count(config, field) * count(config, size) if config.get(field) else 0


_PLAIN_ROUTER: Final = Router()


@dataclass(frozen=True, slots=True)
class MoeFamily:
    """How one architecture fills the common skeleton.

    `num_experts` lists fields, the first that is present counts. `correction_field` is a flag of config.json
    that the router's score correction hangs on. `qkv_bias` and `output_bias` are "always", "" or a field;
    `norms` of queries and keys: "heads", "asked" (by `norm_field`), "whole" or "divided" over all heads
    together, or "". `window`: "plain" (sliding_window holds for all layers), "asked" (with use_sliding_window
    only), "never" (the engine overlooks it) or "listed" (layer_types decides). `norm_bias`: norms and head have
    biases too. `everywhere`: all pipeline stages hold embedding, last norm and head. `ties` is False where the
    engine keeps an own head whatever the configuration says. `draft_norms` are norms of a layer for multi-token
    prediction, where the engine has such layers: `default_drafts` of them.
    """

    num_experts: tuple[str, ...] = ("num_experts", "num_local_experts")
    top_k: str = "num_experts_per_tok"
    expert_size: str = "moe_intermediate_size"
    is_sparse: Callable[[Config, int], bool] = _every_layer
    block: str = "mlp"
    parts: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    router: Router = _PLAIN_ROUTER
    correction_field: str | None = None
    shared_size: Callable[[Config], int] = _no_shared
    shared_name: str = "shared_experts"
    has_shared_gate: bool = False
    qkv_bias: str = ""
    output_bias: str = ""
    norms: str = ""
    norm_field: str = "use_qk_norm"
    derived_head_dim: bool = False
    default_head_dim: int | None = None
    default_kv_heads: int | None = None
    window: str = "plain"
    mlp_bias: str = ""
    norm_bias: bool = False
    default_rotary: float = 1.0
    everywhere: bool = False
    ties: bool = True
    tied_by_default: bool = False
    draft_norms: tuple[str, ...] = ()
    default_drafts: int = 0


_MIXTRAL_PARTS: Final = ("w1", "w3", "w2")

_EXAONE: Final = MoeFamily(
    is_sparse=_as_listed,
    router=Router(correction="e_score_correction_bias"),
    shared_size=_shared_number("num_shared_experts"),
    qkv_bias="attention_bias",
    output_bias="attention_bias",
    norms="heads",
    window="listed",
    mlp_bias="mlp_bias",
)

FAMILIES: Final[Mapping[str, MoeFamily]] = {
    "Qwen3MoeForCausalLM": MoeFamily(
        is_sparse=_in_steps,
        shared_size=_shared_size("shared_expert_intermediate_size"),
        shared_name="shared_expert",
        has_shared_gate=True,
        qkv_bias="attention_bias",
        norms="heads",
        default_kv_heads=4,
        window="asked",
        everywhere=True,
    ),
    "Qwen2MoeForCausalLM": MoeFamily(
        is_sparse=_in_steps,
        shared_size=_shared_size("shared_expert_intermediate_size", 5632),
        shared_name="shared_expert",
        has_shared_gate=True,
        qkv_bias="always",
        derived_head_dim=True,
        default_kv_heads=16,
        window="never",
        everywhere=True,
    ),
    "MixtralForCausalLM": MoeFamily(
        num_experts=("num_local_experts", "num_experts"),
        expert_size="intermediate_size",
        block="block_sparse_moe",
        parts=_MIXTRAL_PARTS,
        default_kv_heads=8,
        everywhere=True,
    ),
    "Glm4MoeForCausalLM": MoeFamily(
        num_experts=("n_routed_experts", "num_local_experts"),
        is_sparse=_after_dense_ones,
        router=Router(fp32=True, correction="gate.e_score_correction_bias"),
        shared_size=_shared_number("n_shared_experts"),
        qkv_bias="attention_bias",
        norms="asked",
        default_kv_heads=8,
        default_rotary=0.5,
        ties=False,
        draft_norms=("enorm", "hnorm", "shared_head.norm"),
        default_drafts=1,
    ),
    "MiniMaxM2ForCausalLM": MoeFamily(
        num_experts=("num_local_experts", "num_experts"),
        expert_size="intermediate_size",
        block="block_sparse_moe",
        parts=_MIXTRAL_PARTS,
        router=Router(fp32=True, correction="e_score_correction_bias"),
        correction_field="use_routing_bias",
        qkv_bias="attention_bias",
        norms="divided",
        default_kv_heads=8,
        ties=False,
    ),
    "OlmoeForCausalLM": MoeFamily(
        expert_size="intermediate_size",
        norms="whole",
        derived_head_dim=True,
        everywhere=True,
        ties=False,
    ),
    "PhiMoEForCausalLM": MoeFamily(
        num_experts=("num_local_experts", "num_experts"),
        expert_size="intermediate_size",
        block="block_sparse_moe",
        parts=_MIXTRAL_PARTS,
        qkv_bias="always",
        output_bias="always",
        default_kv_heads=8,
        norm_bias=True,
        everywhere=True,
        ties=False,
    ),
    "Ernie4_5_MoeForCausalLM": MoeFamily(
        num_experts=("moe_num_experts", "num_experts"),
        top_k="moe_k",
        is_sparse=_in_range,
        router=Router(
            fp32=True,
            correction="gate.e_score_correction_bias",
            stored_correction="moe_statics.e_score_correction_bias",
            stored_lead=(1,),
        ),
        shared_size=_shared_number("moe_num_shared_experts"),
        qkv_bias="use_bias",
        default_kv_heads=4,
        mlp_bias="use_bias",
        tied_by_default=True,
    ),
    "ExaoneMoeForCausalLM": _EXAONE,
    "ExaoneMoEForCausalLM": _EXAONE,
    "HYV3ForCausalLM": MoeFamily(
        expert_size="expert_hidden_dim",
        is_sparse=_after_dense_ones,
        router=Router(stored_name="router.gate", fp32=True, correction="expert_bias"),
        shared_size=_shared_number("num_shared_experts", "expert_hidden_dim"),
        shared_name="shared_mlp",
        norms="asked",
        norm_field="qk_norm",
        default_kv_heads=8,
        default_head_dim=128,
        everywhere=True,
        draft_norms=("enorm", "hnorm", "final_layernorm"),
    ),
}
"""The families by the name of their architecture."""
