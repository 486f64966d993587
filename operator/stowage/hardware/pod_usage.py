"""What a pod holds of a node, counted as the scheduler counts it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from stowage.hardware.resources import Resources, parse_resources, total
from stowage.hardware.taints import Toleration, parse_tolerations

_OWNER_LABEL: Final = "stowage.dev/name"
_DEVICE_PREFIXES: Final = ("nvidia.com/", "amd.com/", "gpu.intel.com/")
_FINISHED: Final = frozenset({"Succeeded", "Failed"})
_NO_SELECTOR: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class PodUsage:
    """What a pod holds or is about to hold.

    `node_name` is None until it is bound. `owner` is `namespace/name` of the LLMDeployment that the pod
    serves, None for foreign pods. `requests` counts one pod slot.
    """

    namespace: str
    name: str
    node_name: str | None
    requests: Resources
    owner: str | None
    node_selector: Mapping[str, str] = field(default_factory=lambda: _NO_SELECTOR)
    tolerations: tuple[Toleration, ...] = ()

    @property
    def holder(self) -> str:
        """Who it belongs to, in words for people."""
        return self.owner or f"namespace {self.namespace}"

    @property
    def device(self) -> str | None:
        """The resource under which it asks for GPUs, None without."""
        return next(
            (name for name in sorted(self.requests.extended) if name.startswith(_DEVICE_PREFIXES)), None
        )


def pod_usage(pod: Mapping[str, Any]) -> PodUsage:
    """Read a Pod as the scheduler counts it; a finished one holds nothing. Raises QuantityError."""
    metadata, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    namespace, labels = str(metadata.get("namespace") or "default"), metadata.get("labels") or {}
    finished = (pod.get("status") or {}).get("phase") in _FINISHED
    owner = labels.get(_OWNER_LABEL)
    return PodUsage(
        namespace=namespace,
        name=str(metadata.get("name", "")),
        node_name=spec.get("nodeName") or None,
        requests=Resources() if finished else _pod_requests(spec),
        owner=f"{namespace}/{owner}" if owner else None,
        node_selector=dict(spec.get("nodeSelector") or {}),
        tolerations=parse_tolerations(spec.get("tolerations") or ()),
    )


def _pod_requests(spec: Mapping[str, Any]) -> Resources:
    """Sum as the scheduler does: containers and sidecars, or the peak of the init phase, plus overhead.

    Rule: Kubernetes, "Resource sharing within containers" for init and sidecar containers.
    """
    running = total(_container_requests(each) for each in spec.get("containers") or ())
    sidecars, peak = Resources(), Resources()
    for container in spec.get("initContainers") or ():
        asked = _container_requests(container)
        if container.get("restartPolicy") == "Always":
            sidecars = sidecars.plus(asked)
            peak = peak.at_least(sidecars)
        else:
            peak = peak.at_least(sidecars.plus(asked))
    needed = running.plus(sidecars).at_least(peak)
    return _with_pod_level(spec, needed).plus(parse_resources(spec.get("overhead"))).plus(Resources(pods=1))


def _with_pod_level(spec: Mapping[str, Any], needed: Resources) -> Resources:
    """Pod-level requests, where a pod states them, replace the containers' CPU and memory."""
    stated = (spec.get("resources") or {}).get("requests") or {}
    whole = parse_resources(stated)
    return replace(
        needed,
        cpu_millicores=whole.cpu_millicores if "cpu" in stated else needed.cpu_millicores,
        memory_bytes=whole.memory_bytes if "memory" in stated else needed.memory_bytes,
    )


def _container_requests(container: Mapping[str, Any]) -> Resources:
    """Read a container's requests; a limit without one is a request, as the API server defaults it."""
    resources = container.get("resources") or {}
    return parse_resources({**(resources.get("limits") or {}), **(resources.get("requests") or {})})
