"""What a shape has to hold to be good enough: context length, KV tokens and concurrency.

What the user states is a condition and is never lowered. What nobody states is a wish: it starts at a
default that suits chat and retrieval (32,768 tokens of KV cache, and as much context) and is halved, step
by step, only when nothing in the cluster can hold it. The plan says which step it ended on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import LLMDeploymentSpec, TokenLengths
from stowage.model.profile import ModelProfile

DEFAULT_KV_TOKENS: Final = 32_768
SMALLEST_KV_TOKENS: Final = 256
DEFAULT_REQUEST_TOKENS: Final = 4_096
DEFAULT_CONCURRENCY: Final = DEFAULT_KV_TOKENS // DEFAULT_REQUEST_TOKENS
SHORT_REQUEST_TOKENS: Final = 512
"""A short turn of a chat: where nobody states lengths, as many of these may run at once as the cache holds."""
# Where only a mean is stated, one request in twenty is taken to be twice as long.
_P95_OVER_MEAN: Final = 2


@dataclass(frozen=True, slots=True)
class Target:
    """What a replica must hold.

    `context_tokens`: one request of this length. `kv_tokens`: so many in all. `concurrency`: so many
    requests of `request_tokens` each at once (0 where the user states none). `context_pinned` and
    `request_stated` say whether the user stated these lengths.
    """

    context_tokens: int
    kv_tokens: int
    concurrency: int
    request_tokens: int
    context_pinned: bool
    request_stated: bool

    @property
    def batch_floor(self) -> int:
        """Fewest sequences per step that the replica must be able to run."""
        return self.concurrency or DEFAULT_CONCURRENCY

    @property
    def running_tokens(self) -> int:
        """Length of a request that the number of running sequences is sized for: stated, else a short one."""
        return self.request_tokens if self.request_stated else min(SHORT_REQUEST_TOKENS, self.request_tokens)

    def per_rank(self, ranks: int) -> Target:
        """Give what each of so many data-parallel ranks must hold, which share requests but no cache."""
        if ranks == 1:
            return self
        return replace(
            self,
            kv_tokens=max(self.context_tokens, -(-self.kv_tokens // ranks)),
            concurrency=-(-self.concurrency // ranks),
        )


def targets(profile: ModelProfile, spec: LLMDeploymentSpec) -> tuple[Target, ...] | Refusal:
    """List targets from the one aimed at down to the least that is acceptable; a refusal if none is possible."""
    pinned = spec.workload.max_model_len
    refusal = _impossible(profile, spec)
    if refusal is not None:
        return refusal
    limit = _context_limit(profile, spec)
    stated = stated_request_tokens(spec)
    found: list[Target] = []
    level = DEFAULT_KV_TOKENS
    while level >= SMALLEST_KV_TOKENS:
        context = pinned or min(limit, max(level, _longest_request(spec)))
        concurrency = spec.workload.concurrency_per_replica or 0
        target = Target(
            context_tokens=context,
            kv_tokens=context if concurrency else max(context, level),
            concurrency=concurrency,
            request_tokens=min(stated or DEFAULT_REQUEST_TOKENS, context),
            context_pinned=pinned is not None,
            request_stated=stated is not None,
        )
        if target not in found:
            found.append(target)
        level //= 2
    return tuple(found)


def stated_request_tokens(spec: LLMDeploymentSpec) -> int | None:
    """Give prompt and answer of an average request together, in tokens; None where neither is stated."""
    prompt, output = spec.workload.prompt_tokens, spec.workload.output_tokens
    if prompt is None and output is None:
        return None
    return (prompt.mean if prompt else 0) + (output.mean if output else 0)


def _impossible(profile: ModelProfile, spec: LLMDeploymentSpec) -> Refusal | None:
    pinned, limit = spec.workload.max_model_len, profile.max_model_len
    if pinned is not None and pinned > limit:
        return Refusal(
            Reason.CONTEXT_TOO_LONG,
            f"spec.workload.maxModelLen is {pinned:,}, but the model allows at most {limit:,} tokens.",
            f"Set it to {limit} or less.",
        )
    mean = stated_request_tokens(spec) or 0
    longest = pinned or limit
    if mean > longest:
        whose = "spec.workload.maxModelLen" if pinned else "the model's context limit"
        return Refusal(
            Reason.CONTEXT_TOO_LONG,
            f"spec.workload.promptTokens and outputTokens add up to {mean:,} tokens on average, more than "
            f"{whose} of {longest:,}.",
            "Shorten the requests, or serve a model with a longer context.",
        )
    return None


def _context_limit(profile: ModelProfile, spec: LLMDeploymentSpec) -> int:
    """Give the model's own default, or its hard limit where the stated requests need more than that."""
    return min(profile.max_model_len, max(profile.default_max_model_len, _longest_request(spec)))


def _longest_request(spec: LLMDeploymentSpec) -> int:
    return _p95(spec.workload.prompt_tokens) + _p95(spec.workload.output_tokens)


def _p95(lengths: TokenLengths | None) -> int:
    if lengths is None:
        return 0
    return lengths.p95 or _P95_OVER_MEAN * lengths.mean
