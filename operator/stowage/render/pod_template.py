"""The pod that serves one replica: an init container that brings the agent, and the engine that the agent starts.

The template meets the `restricted` Pod Security Standard. It mentions the agent image in exactly one place, so that
the image of a live template can be kept when only the operator has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.api.v1alpha1.runtime import env_to_pod
from stowage.planning.plan import Plan
from stowage.render import names
from stowage.render.canonical import digest
from stowage.render.durations import (
    PRE_STOP_SECONDS,
    startup_timeout_seconds,
    termination_grace_period_seconds,
)
from stowage.render.node_preference import node_preference
from stowage.render.served_spec import served_spec
from stowage.world import EngineOptions

PROBE_PERIOD_SECONDS = 2
LIVENESS_PERIOD_SECONDS = 10
# An unprivileged user that needs no entry in the image's password file; see USER below.
RUN_AS_USER = 64000


def pod_template(
    resource: Mapping[str, Any], spec: LLMDeploymentSpec, plan: Plan, options: EngineOptions, launch_name: str
) -> dict[str, Any]:
    """The pod template of the Deployment, without anything that depends on the operator's version but its image."""
    name = resource["metadata"]["name"]
    spec = served_spec(spec, plan)
    runtime = spec.runtime
    labels = {**runtime.pod_labels, **names.object_labels(name), names.LEADER_LABEL: "true"}
    template: dict[str, Any] = {"metadata": {"labels": labels}, "spec": {}}
    if runtime.pod_annotations:
        template["metadata"]["annotations"] = dict(runtime.pod_annotations)
    pod = template["spec"]
    pod.update(
        {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": pod_security_context(),
            "terminationGracePeriodSeconds": termination_grace_period_seconds(),
            "initContainers": [agent_container(options.agent_image)],
            "containers": [_engine_container(spec, plan, options)],
            "volumes": _volumes(spec, plan, launch_name),
        }
    )
    if plan.node_selector:
        pod["nodeSelector"] = dict(plan.node_selector)
    if preference := node_preference(plan):
        pod["affinity"] = preference
    if tolerations := _tolerations(spec, plan):
        pod["tolerations"] = tolerations
    pod.update(identity_fields(spec))
    # Pods inherit it, so that a pod of an older template is told from a current one without asking anybody.
    annotations = template["metadata"].setdefault("annotations", {})
    annotations[names.TEMPLATE_HASH_ANNOTATION] = digest(template)
    return template


def template_hash(obj: Mapping[str, Any]) -> str | None:
    """The template hash that a template, or a pod made from one, carries; None for somebody else's."""
    annotations = obj.get("metadata", {}).get("annotations") or {}
    return annotations.get(names.TEMPLATE_HASH_ANNOTATION)


def is_whole(template: Mapping[str, Any]) -> bool:
    """Whether a recorded template is exactly what was rendered: its hash is that of the rest."""
    metadata = dict(template["metadata"])
    annotations = dict(metadata["annotations"])
    recorded = annotations.pop(names.TEMPLATE_HASH_ANNOTATION)
    return bool(recorded == digest({**template, "metadata": {**metadata, "annotations": annotations}}))


def identity_fields(spec: LLMDeploymentSpec) -> dict[str, Any]:
    """Pod fields that say who the pod is to the cluster: service account, pull secrets, priority."""
    runtime = spec.runtime
    fields: dict[str, Any] = {}
    if runtime.service_account_name:
        fields["serviceAccountName"] = runtime.service_account_name
    if runtime.priority_class_name:
        fields["priorityClassName"] = runtime.priority_class_name
    if runtime.image_pull_secrets:
        fields["imagePullSecrets"] = [{"name": secret.name} for secret in runtime.image_pull_secrets]
    return fields


def pod_security_context() -> dict[str, Any]:
    """The pod-level half of the `restricted` Pod Security Standard."""
    return {
        "runAsNonRoot": True,
        "runAsUser": RUN_AS_USER,
        "runAsGroup": RUN_AS_USER,
        "fsGroup": RUN_AS_USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security_context() -> dict[str, Any]:
    """The container-level half of the `restricted` Pod Security Standard."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def agent_container(agent_image: str) -> dict[str, Any]:
    """The init container that copies the agent's zipapp into the pod."""
    small = {"cpu": "50m", "memory": "64Mi"}
    return {
        "name": names.AGENT_CONTAINER,
        "image": agent_image,
        "command": ["cp", names.AGENT_IN_IMAGE, names.AGENT_PATH],
        "resources": {"requests": small, "limits": {"memory": small["memory"]}},
        "securityContext": container_security_context(),
        "volumeMounts": [{"name": "agent", "mountPath": names.AGENT_DIR}],
    }


def engine_image(spec: LLMDeploymentSpec, plan: Plan, options: EngineOptions) -> str:
    """The user's image, or the default one of the hardware class at the planned engine version."""
    return spec.runtime.image or options.images[plan.image_class].format(version=plan.engine_version)


def _engine_container(spec: LLMDeploymentSpec, plan: Plan, options: EngineOptions) -> dict[str, Any]:
    return {
        "name": names.ENGINE_CONTAINER,
        "image": engine_image(spec, plan, options),
        "command": ["python3", names.AGENT_PATH, "run", "--spec", f"{names.LAUNCH_DIR}/{names.LAUNCH_KEY}"],
        "env": _environment(spec),
        "ports": [
            {"name": "http", "containerPort": names.HTTP_PORT, "protocol": "TCP"},
            {"name": "agent", "containerPort": names.AGENT_PORT, "protocol": "TCP"},
        ],
        "resources": _resources(spec, plan),
        "securityContext": container_security_context(),
        "volumeMounts": _volume_mounts(spec),
        "startupProbe": _probe("/startupz", startup_timeout_seconds(spec, plan) // PROBE_PERIOD_SECONDS + 1),
        "readinessProbe": _probe("/readyz", 3),
        "livenessProbe": _probe("/livez", 6, LIVENESS_PERIOD_SECONDS),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
    }


def _environment(spec: LLMDeploymentSpec) -> list[dict[str, Any]]:
    env: list[dict[str, Any]] = pod_identity_environment()
    env += [
        # vLLM writes caches below these; the root file system is read-only and the user has no home.
        {"name": "HOME", "value": names.CACHE_DIR},
        {"name": "HF_HOME", "value": f"{names.CACHE_DIR}/hf"},
        {"name": "VLLM_CACHE_ROOT", "value": f"{names.CACHE_DIR}/vllm"},
        {"name": "XDG_CACHE_HOME", "value": f"{names.CACHE_DIR}/xdg"},
        # PyTorch asks for the user's name, which an arbitrary uid does not have.
        {"name": "USER", "value": "stowage"},
        {"name": "LOGNAME", "value": "stowage"},
    ]
    env += token_environment(spec)
    return env + env_to_pod(spec.runtime.env)


def pod_identity_environment() -> list[dict[str, Any]]:
    """What the agent needs to know about its own pod."""
    fields = {
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "POD_IP": "status.podIP",
        "NODE_NAME": "spec.nodeName",
    }
    return [{"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()]


def token_environment(spec: LLMDeploymentSpec) -> list[dict[str, Any]]:
    """HF_TOKEN by reference; the operator itself never reads the Secret."""
    ref = spec.model.token_secret_ref
    if ref is None:
        return []
    return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": ref.name, "key": ref.key}}}]


def _resources(spec: LLMDeploymentSpec, plan: Plan) -> dict[str, Any]:
    requests: dict[str, Any] = {
        "cpu": f"{plan.requests.cpu_millicores}m",
        "memory": str(plan.requests.memory_bytes),
    }
    limits: dict[str, Any] = {}
    requests.update(spec.runtime.resources.requests)
    limits.update(spec.runtime.resources.limits)
    if plan.gpu_resource is not None:
        requests[plan.gpu_resource] = limits[plan.gpu_resource] = str(plan.gpus_per_replica)
    return {"requests": requests, **({"limits": limits} if limits else {})}


def _volumes(spec: LLMDeploymentSpec, plan: Plan, launch_name: str) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "agent", "emptyDir": {}},
        {"name": "launch", "configMap": {"name": launch_name}},
        {"name": "cache", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(plan.shm_bytes)}},
        {"name": "tmp", "emptyDir": {}},
    ]
    return volumes + model_volume(spec)


def model_volume(spec: LLMDeploymentSpec) -> list[dict[str, Any]]:
    """The volume of a `pvc://claim/path` model, if it is one."""
    if not spec.model.source.startswith("pvc://"):
        return []
    claim = spec.model.source.removeprefix("pvc://").split("/", 1)[0]
    return [{"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}]


def model_volume_mount(spec: LLMDeploymentSpec) -> list[dict[str, Any]]:
    """Where that volume appears in the container."""
    if not spec.model.source.startswith("pvc://"):
        return []
    _, _, path = spec.model.source.removeprefix("pvc://").partition("/")
    mount: dict[str, Any] = {"name": "model", "mountPath": names.MODEL_DIR, "readOnly": True}
    return [{**mount, "subPath": path} if path else mount]


def _volume_mounts(spec: LLMDeploymentSpec) -> list[dict[str, Any]]:
    return [
        {"name": "agent", "mountPath": names.AGENT_DIR, "readOnly": True},
        {"name": "launch", "mountPath": names.LAUNCH_DIR, "readOnly": True},
        {"name": "cache", "mountPath": names.CACHE_DIR},
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 — NCCL and vLLM's workers meet here
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 — an emptyDir of this pod
        *model_volume_mount(spec),
    ]


def _tolerations(spec: LLMDeploymentSpec, plan: Plan) -> list[dict[str, Any]]:
    tolerations: list[dict[str, Any]] = []
    if plan.gpu_resource is not None:
        tolerations.append({"key": names.GPU_TAINT, "operator": "Exists", "effect": "NoSchedule"})
    return tolerations + [item.to_dict() for item in spec.hardware.tolerations]


def _probe(path: str, failures: int, period: int = PROBE_PERIOD_SECONDS) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "agent"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }
