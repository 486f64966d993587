"""The transient peak of the profiling run: the widest layer, or the sampler, whichever is larger.

Layer term: residual, hidden, gate/up and activation outputs of all batched tokens (matched at 20,000 and
29,000 tokens, vllm-project/vllm#10517). Sampler term: logits of one position of each request over the whole
vocabulary, times what the release's sampler holds per logit; it runs on the last pipeline stage only.
"""

from __future__ import annotations

from functools import lru_cache

from stowage.memory.estimates import (
    Estimate,
    dense_activation_band,
    gathered_bytes_per_logit,
    sampler_bytes_per_logit,
)
from stowage.memory.layout import RankLayout
from stowage.memory.setting import Setting
from stowage.model.profile import ModelProfile


def activation_bytes(setting: Setting, layout: RankLayout) -> Estimate:
    """Give the transient peak on a rank in bytes."""
    tokens = setting.shape.max_num_batched_tokens
    output = tokens * setting.profile.hidden_size * setting.element_bytes
    layer = _layer_bytes(setting) + output
    if layout.pipeline_parallel_size > 1:
        layer += 2 * output
    band = dense_activation_band()
    peak = Estimate(layer, layer * (1 - band), layer * (1 + band))
    if not layout.is_last:
        return peak
    sampler = _sampler_bytes(setting).plus(Estimate(output, output, output))
    return Estimate(max(peak.value, sampler.value), max(peak.low, sampler.low), max(peak.high, sampler.high))


def _layer_bytes(setting: Setting) -> float:
    shape, profile = setting.shape, setting.profile
    width = 2 * profile.hidden_size + 3 * _widest_mlp(profile) / shape.tensor_parallel_size
    return shape.max_num_batched_tokens * width * setting.element_bytes


@lru_cache(maxsize=256)
def _widest_mlp(profile: ModelProfile) -> int:
    return max(
        (layer.feed_forward.intermediate_size for layer in profile.layers if layer.feed_forward), default=0
    )


def _sampler_bytes(setting: Setting) -> Estimate:
    logits = setting.shape.max_num_seqs * setting.profile.padded_vocab_size
    if setting.runner != "V2":
        return sampler_bytes_per_logit(setting.version.sampler).scaled(logits)
    gathered = gathered_bytes_per_logit() * logits if setting.shape.tensor_parallel_size > 1 else 0.0
    return sampler_bytes_per_logit("v2").scaled(logits).plus(Estimate(gathered, gathered, gathered))
