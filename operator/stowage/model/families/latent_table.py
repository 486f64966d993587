"""The architectures with multi-head latent attention: in what they differ from one another, as a table.

Class defaults for absent fields are those of transformers' configuration classes (5.19.0), the rest follows
vLLM's model files (0.32.0). A row holds no code of its own: what it can say is read by `latent`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from stowage.model.families.moe_layers import Router

_CORRECTION: Final = "gate.e_score_correction_bias"


@dataclass(frozen=True, slots=True)
class LatentFamily:
    """How one architecture fills the common skeleton.

    `defaults` are those of the configuration class for absent fields. `corrected`: the router's score
    correction hangs on topk_method ("noaux_tc"), on a flag of that name, or is always there (""). `in_steps`:
    moe_layer_freq counts. `sandwich`: sandwich_norm adds two norms. `rope`: "stated", or "plain" where the
    engine overlooks any scaling. `ties`: the engine honours tie_word_embeddings. `sequence_parallel`: its shared
    experts can be whole on ranks that hand each other parts of the sequence.
    """

    defaults: Mapping[str, int] = field(default_factory=dict)
    corrected: str = "topk_method"
    router: Router = Router(correction=_CORRECTION)  # noqa: RUF009 - a frozen value
    in_steps: bool = True
    sandwich: bool = False
    rope: str = "stated"
    ties: bool = False
    sequence_parallel: bool = True


_V3_DEFAULTS: Final = {
    "first_k_dense_replace": 3,
    "kv_lora_rank": 512,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
_V2_DEFAULTS: Final = {
    **_V3_DEFAULTS,
    "first_k_dense_replace": 0,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
}
_GLM_DEFAULTS: Final = {
    **_V3_DEFAULTS,
    "index_head_dim": 128,
    "index_n_heads": 32,
    "index_topk": 2048,
    "q_lora_rank": 2048,
    "qk_nope_head_dim": 192,
    "v_head_dim": 256,
}
_GLM_LITE_DEFAULTS: Final = {
    **{name: value for name, value in _V3_DEFAULTS.items() if name != "first_k_dense_replace"},
    "n_routed_experts": 64,
    "num_experts_per_tok": 4,
    "q_lora_rank": 768,
    "qk_nope_head_dim": 192,
    "v_head_dim": 256,
}

FAMILIES: Final[Mapping[str, LatentFamily]] = {
    "DeepseekForCausalLM": LatentFamily({"first_k_dense_replace": 0}),
    "DeepseekV2ForCausalLM": LatentFamily(_V2_DEFAULTS),
    "DeepseekV3ForCausalLM": LatentFamily(_V3_DEFAULTS),
    "DeepseekV32ForCausalLM": LatentFamily(_V3_DEFAULTS),
    "GlmMoeDsaForCausalLM": LatentFamily(_GLM_DEFAULTS),
    "Glm4MoeLiteForCausalLM": LatentFamily(
        _GLM_LITE_DEFAULTS,
        corrected="",
        router=Router(fp32=True, correction=_CORRECTION),
        sequence_parallel=False,
    ),
    "PanguUltraMoEForCausalLM": LatentFamily(
        corrected="router_enable_expert_bias",
        router=Router(correction=_CORRECTION, stored_correction="e_score_correction_bias"),
        in_steps=False,
        sandwich=True,
        rope="plain",
        ties=True,
    ),
}
