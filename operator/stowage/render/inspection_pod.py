"""A short pod that reads a model which the operator itself may not or cannot read.

The operator has no right to read Secrets and mounts no volumes. A gated model or a model on a claim is therefore
inspected where the credential or the volume may be used: in the namespace of the object, by the agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.render import names
from stowage.render.canonical import digest
from stowage.render.pod_template import (
    container_security_context,
    identity_fields,
    model_volume,
    model_volume_mount,
    pod_identity_environment,
    pod_security_context,
    token_environment,
)
from stowage.world import EngineOptions

DEADLINE_SECONDS = 900


def inspection_pod_name(resource_name: str, inputs: str) -> str:
    """One name per set of planning inputs, so that an edited spec gets a fresh pod."""
    return f"{resource_name}-inspect-{digest(inputs, 10)}"


def inspection_pod(
    resource: Mapping[str, Any], spec: LLMDeploymentSpec, options: EngineOptions, inputs: str
) -> dict[str, Any]:
    """The pod that serves the checkpoint summary on the agent's port until it was read."""
    name = inspection_pod_name(resource["metadata"]["name"], inputs)
    env = pod_identity_environment() + token_environment(spec)
    if options.hub_endpoint:
        env.append({"name": "HF_ENDPOINT", "value": options.hub_endpoint})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": names.object_metadata(resource, name, names.INSPECT_ROLE),
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": pod_security_context(),
            "containers": [_inspect_container(spec, options, env)],
            "volumes": [{"name": "tmp", "emptyDir": {}}, *model_volume(spec)],
            **identity_fields(spec),
        },
    }


def _inspect_container(
    spec: LLMDeploymentSpec, options: EngineOptions, env: list[dict[str, Any]]
) -> dict[str, Any]:
    command = ["python3", names.AGENT_IN_IMAGE, "inspect"]
    if spec.model.scheme == "pvc":
        command += ["--source", names.MODEL_DIR, "--name", spec.model.source]
    else:
        command += ["--source", spec.model.source]
    if spec.model.revision:
        command += ["--revision", spec.model.revision]
    return {
        "name": names.INSPECT_CONTAINER,
        "image": options.agent_image,
        "command": command,
        "env": env,
        "ports": [{"name": "agent", "containerPort": names.AGENT_PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": container_security_context(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *model_volume_mount(spec)],  # noqa: S108
    }
