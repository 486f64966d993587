"""Which parallel sizes a model's encoders allow, as a refusal that says what would work.

Towers are divided by tensor parallelism like decoders, but their sizes are their own (Qwen2.5-VL-7B has 3420
feed-forward columns, which 8 does not divide), and a tower that is not loaded puts no limit. Some models cannot
be cut into pipeline stages, or need their first layers together, because they take features of the tower.
Rules of vLLM 0.32.0: `divide()` in the parallel layers, `verify_with_parallel_config`, qwen3_vl.py.
"""

from __future__ import annotations

from functools import lru_cache

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.memory.encoder import absent_modalities
from stowage.memory.pipeline import stage_layers
from stowage.memory.shape import EngineShape
from stowage.model.profile import EncoderProfile, ModelProfile

_MAX_SUGGESTED_RANKS = 16


def check_encoders(profile: ModelProfile, shape: EngineShape) -> Refusal | None:
    """Give the first rule that the shape breaks, or None; the sizes fit the decoder already."""
    pipeline = _check_pipeline(profile, shape.pipeline_parallel_size)
    return pipeline or _check_towers(profile, shape.tensor_parallel_size, absent_modalities(profile, shape))


@lru_cache(maxsize=1024)
def _check_towers(profile: ModelProfile, tp: int, absent: tuple[str, ...]) -> Refusal | None:
    loaded = [encoder for encoder in profile.encoders if encoder.modality not in absent]
    problem = next((found for found in (_indivisible(each, tp) for each in loaded) if found), None)
    if problem is None:
        return None
    sizes = [
        size
        for size in range(1, _MAX_SUGGESTED_RANKS + 1)
        if not any(_indivisible(encoder, size) for encoder in loaded)
    ]
    hint = f"The encoder works with TP {', '.join(map(str, sizes))}; a language model only has no such limit."
    return Refusal(Reason.INVALID_PARALLELISM, problem, hint)


def _indivisible(encoder: EncoderProfile, tp: int) -> str | None:
    if not encoder.divided:
        return None
    if encoder.num_heads % tp:
        if encoder.whole_where_indivisible:
            return None
        return f"TP {tp} does not divide the {encoder.num_heads} heads of the {encoder.modality} encoder."
    if encoder.intermediate_size % tp:
        size = encoder.intermediate_size
        return f"TP {tp} does not divide the feed-forward size of {size} of the {encoder.modality} encoder."
    return None


@lru_cache(maxsize=1024)
def _check_pipeline(profile: ModelProfile, pp: int) -> Refusal | None:
    if pp == 1:
        return None
    if not profile.supports_pipeline:
        message = f"The engine cannot cut a {profile.architecture} into pipeline stages."
        return Refusal(Reason.INVALID_PARALLELISM, message, "Use pipeline parallel size 1.")
    first = len(stage_layers(profile.num_layers, pp)[0])
    if first < profile.min_first_stage_layers:
        message = (
            f"Pipeline parallel size {pp} leaves {first} layers on the first stage; the first "
            f"{profile.min_first_stage_layers} take features of the tower and must be together."
        )
        return Refusal(Reason.INVALID_PARALLELISM, message, "Use fewer pipeline stages.")
    return None
