"""The ConfigMap that carries a LaunchSpec into pods, and the one that remembers accuracy checks.

The first is named by the hash of its content and immutable: a pod that restarts months later reads exactly what its
replica set was made with, whatever the operator has planned since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from stowage.render import names

LAUNCH_ROLE = "launch"


def launch_config_map_name(resource_name: str, launch_json: str) -> str:
    """`<name>-launch-<first ten hexadecimal digits of the SHA-256 of the content>`."""
    return f"{resource_name}-launch-{hashlib.sha256(launch_json.encode()).hexdigest()[:10]}"


def launch_config_map(resource: Mapping[str, Any], launch_json: str) -> dict[str, Any]:
    """The immutable ConfigMap with the LaunchSpec under `launch.json`."""
    name = launch_config_map_name(resource["metadata"]["name"], launch_json)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": names.object_metadata(resource, name, LAUNCH_ROLE),
        "immutable": True,
        "data": {names.LAUNCH_KEY: launch_json},
    }


def accuracy_record_map(resource: Mapping[str, Any], record_json: str) -> dict[str, Any]:
    """What is remembered of accuracy checks while no workload object exists that could carry it."""
    name = f"{resource['metadata']['name']}-accuracy"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": names.object_metadata(resource, name, names.ACCURACY_ROLE),
        "data": {names.RECORD_KEY: record_json},
    }
