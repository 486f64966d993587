"""Which of its two model runners a release serves a model with; they keep and profile different buffers.

Rules of vllm/config/vllm.py (`use_v2_model_runner`, `_is_default_v2_model_runner_model`,
`_get_v2_model_runner_unsupported_features`; 0.22.1, 0.24.0 to 0.28.0, 0.32.0).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from stowage.memory.release.engine_version import EngineVersion
from stowage.model.profile import ModelProfile, MoeProfile, StateProfile

_NOT_ON_V2: Final = {
    "all": frozenset({"suffix", "medusa", "mlp_speculator"}),
    "fewer": frozenset({"ngram", "ngram_gpu", "suffix", "medusa", "mlp_speculator", "draft_model"}),
}
"""Ways to guess tokens that keep a model on V1: where V2 serves everything else, and before."""


@lru_cache(maxsize=1024)
def model_runner(profile: ModelProfile, version: EngineVersion, draft_method: str | None) -> str:
    """Give "V1" or "V2" for a model on a GPU, with `draft_method` guessing tokens (None: nothing does)."""
    if draft_method in _NOT_ON_V2["all" if version.v2_also == "all" else "fewer"]:
        return "V1"
    if version.v2_also == "all":
        return "V2"
    if profile.quantization is not None and not version.v2_quantized:
        return "V1"
    if profile.architecture in version.v2_architectures:
        return "V2"
    return "V2" if version.v2_also == "dense" and _is_dense(profile) else "V1"


def _is_dense(profile: ModelProfile) -> bool:
    """Tell models without experts and without layers that keep states."""
    layers = dict.fromkeys(profile.layers)
    experts = any(isinstance(layer.feed_forward, MoeProfile) for layer in layers)
    states = any(isinstance(mixer, StateProfile) for layer in layers for mixer in layer.mixers)
    return not experts and not states
