"""Labels, annotations, object names and paths that the rendered objects share.

Selectors use only `stowage.dev/` keys, which never change for the life of an object. Paths and ports are read by the
agent in the pod as well: `docs/architecture.md` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAME_LABEL = "stowage.dev/name"
ROLE_LABEL = "stowage.dev/role"
LEADER_LABEL = "stowage.dev/leader"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGER = "stowage"

IN_FORCE_ANNOTATION = "stowage.dev/in-force"
ACCURACY_ANNOTATION = "stowage.dev/accuracy"
BETTER_ANNOTATION = "stowage.dev/better-plan"
START_UPS_ANNOTATION = "stowage.dev/start-ups"
CHECK_ANNOTATION = "stowage.dev/accuracy-check"
TEMPLATE_HASH_ANNOTATION = "stowage.dev/template-hash"

SERVER_ROLE = "server"
INSPECT_ROLE = "inspect"
ACCURACY_ROLE = "accuracy"

AGENT_CONTAINER = "agent"
ENGINE_CONTAINER = "engine"
INSPECT_CONTAINER = "inspect"

AGENT_IN_IMAGE = "/opt/stowage/agent.pyz"
AGENT_DIR = "/stowage/bin"
AGENT_PATH = f"{AGENT_DIR}/agent.pyz"
LAUNCH_DIR = "/stowage/launch"
LAUNCH_KEY = "launch.json"
CACHE_DIR = "/stowage/cache"
MODEL_DIR = "/stowage/model"
CANDIDATE_VOLUME = "candidate"
CANDIDATE_DIR = "/stowage/candidate"
PROMPTS_DIR = "/stowage/prompts"
CHECK_KEY = "check.json"
RECORD_KEY = "record.json"

HTTP_PORT = 8000
AGENT_PORT = 9400

GPU_TAINT = "nvidia.com/gpu"


def selector_labels(name: str) -> dict[str, str]:
    """Labels that select exactly the server pods of one LLMDeployment, for ever."""
    return {NAME_LABEL: name, ROLE_LABEL: SERVER_ROLE}


def replica_selector(name: str) -> str:
    """`status.selector`: matches exactly one pod per replica, so that averages of the HPA are right."""
    return f"{LEADER_LABEL}=true,{NAME_LABEL}={name},{ROLE_LABEL}={SERVER_ROLE}"


def object_labels(name: str, role: str = SERVER_ROLE) -> dict[str, str]:
    """Labels that every rendered object carries."""
    return {
        "app.kubernetes.io/name": "vllm",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/component": role,
        "app.kubernetes.io/part-of": "llm-deployment",
        MANAGED_BY_LABEL: MANAGER,
        NAME_LABEL: name,
        ROLE_LABEL: role,
    }


def owner_reference(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the garbage collector remove the object together with its LLMDeployment."""
    return {
        "apiVersion": resource["apiVersion"],
        "kind": resource["kind"],
        "name": resource["metadata"]["name"],
        "uid": resource["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def object_metadata(resource: Mapping[str, Any], name: str, role: str = SERVER_ROLE) -> dict[str, Any]:
    """Metadata of an object called `name` that belongs to `resource`."""
    return {
        "name": name,
        "namespace": resource["metadata"]["namespace"],
        "labels": object_labels(resource["metadata"]["name"], role),
        "ownerReferences": [owner_reference(resource)],
    }
