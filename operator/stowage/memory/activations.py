"""The transient peak of the profiling run: the widest layer, or the sampler, whichever is larger.

Layer term: what the widest part of any layer holds for all batched tokens (layer_peak.py). Sampler term: logits of
one position of each request over the whole vocabulary, times what the release's sampler holds per logit; it runs on
the last pipeline stage only.
"""

from __future__ import annotations

from typing import Final

from stowage.memory.encoder import encoder_bytes
from stowage.memory.estimates import (
    Estimate,
    gathered_bytes_per_logit,
    library_workspace_bytes,
    sampler_bytes_per_logit,
)
from stowage.memory.layer_peak import kept_expert_bytes, layer_peaks
from stowage.memory.layout import RankLayout
from stowage.memory.setting import Setting

_LATENT_WORKSPACE_TOKENS: Final = 64 * 1024
"""Upper limit of the chunked-context workspace, in tokens (mla_attention.py)."""


def activation_bytes(setting: Setting, layout: RankLayout) -> Estimate:
    """Give the transient peak on a rank in bytes."""
    tokens = setting.shape.max_num_batched_tokens
    output = tokens * setting.profile.hidden_size * setting.element_bytes
    peak = _layers_peak(setting)
    if layout.pipeline_parallel_size > 1:
        peak = peak.plus(Estimate(2 * output, 2 * output, 2 * output))
    if layout.is_last:
        sampler = _sampler_bytes(setting).plus(Estimate(output, output, output))
        sampler = sampler.plus(kept_expert_bytes(setting.basis).scaled(tokens))
        sampler = sampler.plus(library_workspace_bytes(setting.device.compute_capability))
        if setting.version.profile_keeps_cached:
            # Blocks of the layers stay cached while the sampler takes its own; how many it reuses is not known.
            peak = Estimate(
                peak.value + sampler.value, max(peak.low, sampler.low), 1.5 * (peak.high + sampler.high)
            )
        peak = Estimate(
            max(peak.value, sampler.value), max(peak.low, sampler.low), max(peak.high, sampler.high)
        )
    return peak.plus(encoder_bytes(setting, layout, peak))


def latent_workspace_tokens(setting: Setting) -> int:
    """Give the tokens of the chunked-context workspace of latent attention."""
    shape = setting.shape
    wanted = max(8 * shape.max_model_len, 4 * shape.max_num_seqs * setting.block_size)
    return min(wanted, _LATENT_WORKSPACE_TOKENS)


def _layers_peak(setting: Setting) -> Estimate:
    tokens, context = setting.shape.max_num_batched_tokens, latent_workspace_tokens(setting)
    peaks = [peak.at(tokens, context) for peak in layer_peaks(setting.basis)]
    return max(peaks, key=lambda estimate: estimate.value)


def _sampler_bytes(setting: Setting) -> Estimate:
    drafted = setting.shape.speculative.num_speculative_tokens if setting.shape.speculative else 0
    logits = setting.shape.max_num_seqs * setting.profile.padded_vocab_size
    tp = setting.shape.tensor_parallel_size
    gathered = Estimate(0.0, 0.0, 0.0)
    if tp > 1:
        each = gathered_bytes_per_logit() * logits
        gathered = Estimate(each, each, each)
    if setting.runner == "V2":
        return sampler_bytes_per_logit("v2").scaled(logits).plus(gathered)
    peak = sampler_bytes_per_logit(setting.version.sampler).scaled(logits)
    if drafted:
        peak = peak.plus(sampler_bytes_per_logit("drafts").scaled(logits))
    return peak
