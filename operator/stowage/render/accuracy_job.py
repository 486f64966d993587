"""The Job that measures what a lossy plan loses, and the ConfigMap that tells it how.

Its pod is a server's pod without a server's duties: the same image, volumes and rights, no probes, one try, an end.
It runs the engines one after the other, so that one set of GPUs, that of the larger plan, is enough. The engines get
the plans' own settings, but for batches that are kept small: log-probabilities of prompts take memory that the
engine does not reserve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.api.v1alpha1.precision import AccuracySpec
from stowage.hardware.catalog import find_gpu
from stowage.hardware.resources import Resources
from stowage.planning.plan import EngineSettings, Plan
from stowage.render import names
from stowage.render.launch_spec import launch_spec
from stowage.render.pod_template import model_volume, model_volume_mount, pod_template
from stowage.render.served_spec import served_spec
from stowage.world import EngineOptions
from stowage_runtime.contract import AccuracyCheck, LaunchSpec

KEPT_SECONDS = 86_400
"""How long a finished Job stays, for its log."""

# Beside the start-up budgets of both engines: answers and scores of a few hundred prompts, with room to spare.
MEASURING_SECONDS = 3 * 3600
# 1,024 tokens times a vocabulary of 150,000 in float32 are 0.6 GiB, a few times over.
_TOKENS_PER_STEP = 1_024
_PARALLEL_REQUESTS = 2
_REQUESTS_OF_CACHE = 2
_KV_BYTES_SINCE = (0, 11, 0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared: a lossy plan with a lossless one, or with recorded answers where no lossless plan fits.

    `check_id` tells one comparison from every other, hexadecimal.
    """

    check_id: str
    candidate: Plan
    baseline: Plan | None
    accuracy: AccuracySpec

    @property
    def larger(self) -> Plan:
        """The plan whose GPUs both engines run on."""
        if self.baseline is None or _size(self.candidate) > _size(self.baseline):
            return self.candidate
        return self.baseline


def accuracy_job_name(resource_name: str, check_id: str) -> str:
    """At most 63 characters, since the Job's name becomes a label of its pod."""
    return f"{resource_name}-acc-{check_id[:8]}"


def accuracy_config_map(
    resource: Mapping[str, Any], spec: LLMDeploymentSpec, what: Comparison, options: EngineOptions
) -> dict[str, Any]:
    """The immutable ConfigMap with the AccuracyCheck under `check.json`."""
    check = AccuracyCheck(
        check_id=what.check_id,
        candidate=_launch(resource, spec, what, what.candidate, options),
        baseline=_launch(resource, spec, what, what.baseline, options) if what.baseline else None,
        prompts_path=names.PROMPTS_DIR,
        answer_tokens=what.accuracy.answer_tokens,
        parallel_requests=_PARALLEL_REQUESTS,
    )
    name = accuracy_job_name(resource["metadata"]["name"], what.check_id)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": names.object_metadata(resource, name, names.ACCURACY_ROLE),
        "immutable": True,
        "data": {names.CHECK_KEY: check.to_json()},
    }


def accuracy_job(
    resource: Mapping[str, Any], spec: LLMDeploymentSpec, what: Comparison, options: EngineOptions
) -> dict[str, Any]:
    """The Job: one pod, one try, a deadline, and removed by itself a day after its end."""
    name = accuracy_job_name(resource["metadata"]["name"], what.check_id)
    metadata = names.object_metadata(resource, name, names.ACCURACY_ROLE)
    metadata["annotations"] = {names.CHECK_ANNOTATION: what.check_id}
    plan = job_plan(what)
    launches = [
        _launch(resource, spec, what, each, options) for each in (what.baseline, what.candidate) if each
    ]
    template = pod_template(resource, spec, plan, options, name)
    _to_job_pod(template, resource["metadata"]["name"])
    _mount(template["spec"], spec, what)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": 0,
            "activeDeadlineSeconds": sum(each.startup_timeout_seconds for each in launches)
            + MEASURING_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": template,
        },
    }


def job_plan(what: Comparison) -> Plan:
    """The plan that the pod is sized and placed by: GPUs of the larger, CPU and memory of whichever needs more."""
    plan = what.larger
    other = what.candidate if plan is what.baseline else what.baseline
    if other is None:
        return plan
    requests = Resources(
        max(plan.requests.cpu_millicores, other.requests.cpu_millicores),
        max(plan.requests.memory_bytes, other.requests.memory_bytes),
        plan.requests.pods,
        plan.requests.extended,
    )
    return replace(plan, requests=requests, shm_bytes=max(plan.shm_bytes, other.shm_bytes))


def _launch(
    resource: Mapping[str, Any],
    spec: LLMDeploymentSpec,
    what: Comparison,
    plan: Plan,
    options: EngineOptions,
) -> LaunchSpec:
    """The plan's own launch on the GPUs of the Job, with small batches."""
    small = replace(plan, settings=_small_batches(plan))
    launch = launch_spec(resource, spec, small, options)
    larger = launch_spec(resource, spec, what.larger, options)
    launch = replace(launch, gpus=larger.gpus)
    if _has_own_volume(spec, what, plan):
        launch = replace(launch, model=replace(launch.model, path=names.CANDIDATE_DIR))
    return launch


def _small_batches(plan: Plan) -> EngineSettings:
    settings, ledger = plan.settings, plan.ledger
    kv_bytes = settings.kv_cache_memory_bytes
    if _release(plan.engine_version) >= _KV_BYTES_SINCE and ledger.kv_needed_bytes > 0:
        enough = _REQUESTS_OF_CACHE * ledger.kv_needed_bytes
        kv_bytes = min(enough, kv_bytes or ledger.kv_cache_band.low)
    return replace(
        settings,
        max_num_seqs=min(settings.max_num_seqs, _PARALLEL_REQUESTS),
        # Hybrids have long blocks, and the engine wants at least one of them in a step.
        max_num_batched_tokens=min(settings.max_num_batched_tokens, max(_TOKENS_PER_STEP, ledger.block_size)),
        kv_cache_memory_bytes=max(kv_bytes, ledger.kv_needed_bytes) if kv_bytes else kv_bytes,
    )


def _to_job_pod(template: dict[str, Any], name: str) -> None:
    """Take from a server's pod what only a server has."""
    metadata, pod = template["metadata"], template["spec"]
    metadata["labels"].update(names.object_labels(name, names.ACCURACY_ROLE))
    del metadata["labels"][names.LEADER_LABEL]
    metadata["annotations"].pop(names.TEMPLATE_HASH_ANNOTATION)
    if not metadata["annotations"]:
        del metadata["annotations"]
    pod["restartPolicy"] = "Never"
    engine = pod["containers"][0]
    for field in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "ports"):
        del engine[field]
    engine["command"] = [
        *("python3", names.AGENT_PATH, "accuracy"),
        *("--spec", f"{names.LAUNCH_DIR}/{names.CHECK_KEY}"),
    ]


def _mount(pod: dict[str, Any], spec: LLMDeploymentSpec, what: Comparison) -> None:
    """Add the prompts, and the volume of the other plan's model where it lies on another one."""
    engine = pod["containers"][0]
    pod["volumes"].append({"name": "prompts", "configMap": {"name": what.accuracy.prompts_ref.config_map}})
    engine["volumeMounts"].append({"name": "prompts", "mountPath": names.PROMPTS_DIR, "readOnly": True})
    for plan in (what.baseline, what.candidate):
        if plan is None or not _has_own_volume(spec, what, plan):
            continue
        served = served_spec(spec, plan)
        own = {"name": names.CANDIDATE_VOLUME}
        pod["volumes"] += [{**volume, **own} for volume in model_volume(served)]
        engine["volumeMounts"] += [
            {**mount, **own, "mountPath": names.CANDIDATE_DIR} for mount in model_volume_mount(served)
        ]


def _has_own_volume(spec: LLMDeploymentSpec, what: Comparison, plan: Plan) -> bool:
    """Whether a plan's model lies on a volume, and not on that of the plan that the pod is made from."""
    model, larger = served_spec(spec, plan).model, served_spec(spec, what.larger).model
    return model.scheme == "pvc" and model.source != larger.source


def _size(plan: Plan) -> int:
    """Memory in bytes that the plan has: of its GPUs, or of its host."""
    gpu = find_gpu(plan.gpu_product) if plan.gpu_product else None
    return plan.gpus_per_replica * gpu.nvml_memory_bytes if gpu else plan.requests.memory_bytes


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+", 1)[0].split(".")[:3] if part.isdecimal())
