"""Step one: what is served. Asks the shell for the model until its profile is known."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.engine.inputs import model_inputs
from stowage.engine.situation import Situation
from stowage.engine.verdict import Verdict
from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile
from stowage.planning.search.lossy import LossyOption
from stowage.render.inspection_pod import inspection_pod_name
from stowage.world import ModelFailed, ModelQuery, ModelResolved, Resolution

_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class ModelStep:
    """The profile once it is known, else the verdict so far; `query` is what the shell should (go on to) resolve.

    `alternatives` are the lossy checkpoints that the spec allows; `left_out` says which of them cannot be read.
    """

    verdict: Verdict
    profile: ModelProfile | None = None
    query: ModelQuery | None = None
    retry_at: datetime | None = None
    alternatives: tuple[LossyOption, ...] = ()
    left_out: tuple[str, ...] = ()


def model_query(situation: Situation, spec: LLMDeploymentSpec) -> ModelQuery:
    """What has to be read. Whatever needs a credential or a volume is read by a pod, not by the operator."""
    model, inputs = spec.model, model_inputs(spec)
    by_pod = model.config_ref is None and (
        model.token_secret_ref is not None or model.source.startswith("pvc://")
    )
    return ModelQuery(
        key=situation.world.key,
        inputs=inputs,
        source=model.source,
        revision=_revision(situation, spec, inputs),
        inspection_pod=inspection_pod_name(situation.name, inputs) if by_pod else None,
        config_map=model.config_ref.config_map if model.config_ref else None,
        alternatives=tuple(sorted(each.source for each in spec.precision.alternatives)),
    )


def resolve_model(situation: Situation, spec: LLMDeploymentSpec) -> ModelStep:
    """Read the shell's answer to our question, or ask it."""
    query = model_query(situation, spec)
    resolution = situation.world.resolution
    state = resolution.state if resolution is not None and _answers(resolution, query) else None
    if isinstance(state, ModelResolved):
        profile = read_profile(state.summary)
        if isinstance(profile, Refusal):
            return ModelStep(Verdict.refused(profile))
        unpinned = _without_commit(spec, profile)
        if unpinned is not None:
            return ModelStep(Verdict.refused(unpinned))
        message = f"{profile.architecture} {spec.model.source} at {profile.revision or 'the volume'}."
        options, left_out = _options(state)
        return ModelStep(
            Verdict(True, Reason.VALID, message), profile, alternatives=options, left_out=left_out
        )
    if isinstance(state, ModelFailed):
        verdict = Verdict.refused(state.refusal)
        return ModelStep(verdict, query=query if state.retry_at else None, retry_at=state.retry_at)
    how = f"by pod {query.inspection_pod}" if query.inspection_pod else "by the operator"
    message = f"The model {spec.model.source} is being read {how}."
    return ModelStep(Verdict(None, Reason.RESOLVING_MODEL, message), query=query)


def _answers(resolution: Resolution, query: ModelQuery) -> bool:
    """Whether this is the answer: also one to a moving tag that was found to be the commit that is asked for now."""
    if resolution.query == query:
        return True
    same = replace(resolution.query, revision=query.revision) == query
    state = resolution.state
    return same and isinstance(state, ModelResolved) and state.summary.revision == query.revision


def _options(state: ModelResolved) -> tuple[tuple[LossyOption, ...], tuple[str, ...]]:
    """The checkpoints that may be served instead, and a sentence for each that cannot."""
    options, left_out = [], []
    for source, found in sorted(state.alternatives.items()):
        profile = found if isinstance(found, Refusal) else read_profile(found)
        if isinstance(profile, Refusal):
            left_out.append(f"The alternative {source} is left out: {profile.message}")
        else:
            options.append(LossyOption(source, profile))
    return tuple(options), tuple(left_out)


def _revision(situation: Situation, spec: LLMDeploymentSpec, inputs: str) -> str | None:
    """The user's revision; the commit in force where the plan has to be made anew for the same wish."""
    record = situation.in_force
    own = record is not None and record.plan.model_source in (None, spec.model.source)
    if record is not None and own and spec.model.scheme == "hf" and model_inputs(record.spec) == inputs:
        return record.plan.model_revision
    return spec.model.revision


def _without_commit(spec: LLMDeploymentSpec, profile: ModelProfile) -> Refusal | None:
    """All replicas must serve the same commit; a ConfigMap may name none, or a branch that moves."""
    if spec.model.scheme != "hf" or _COMMIT.fullmatch(profile.revision or ""):
        return None
    given = f"names {profile.revision}, which is not a commit" if profile.revision else "names no commit"
    return Refusal(
        Reason.INVALID_CONFIG_MAP,
        f"The ConfigMap of spec.model.configRef {given}.",
        "Put the output of `stowage inspect` into it, or set spec.model.revision to a full commit.",
    )
