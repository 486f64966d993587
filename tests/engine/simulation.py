"""A cluster in a dictionary: carries out Outcomes as the API server and the Deployment controller would.

Only what the engine can see is modelled. It places pods on the node that has most room and never refuses anything.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from stowage.engine import reconcile
from stowage.engine.record import read_in_force
from stowage.hardware.inventory import build_inventory, pod_usage
from stowage.hardware.node import node_facts
from stowage.memory.calibration import UNCALIBRATED, Calibration
from stowage.planning.placement import place_replicas
from stowage.world import (
    EngineOptions,
    Key,
    ModelFailed,
    ModelResolved,
    ModelState,
    ObjectRef,
    Outcome,
    PodReport,
    Resolution,
    World,
)
from stowage_runtime.contract import CheckpointSummary, EngineFacts, RuntimeReport, Utilization
from tests.model.support import config_of

START = datetime(2026, 1, 1, tzinfo=UTC)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OPTIONS = EngineOptions(
    agent_image="ghcr.io/stowage-dev/stowage:0.1.0",
    default_engine_version="0.32.0",
    images={"GPU": "vllm/vllm-openai:v{version}", "CPU": "vllm/vllm-openai-cpu:v{version}"},
)

LLAMA_8B = config_of("meta-llama--Llama-3.1-8B-Instruct")


def summary(
    config: Mapping[str, Any] = LLAMA_8B, source: str = "hf://meta-llama/Llama-3.1-8B"
) -> CheckpointSummary:
    return CheckpointSummary(
        source=source, config=config, tensors=(), total_bytes=0, files=0, revision=COMMIT
    )


def gpu_node(
    name: str, count: int = 4, product: str = "NVIDIA-L4", memory_mib: int = 23034, capability: str = "8.9"
) -> dict[str, Any]:
    major, minor = capability.split(".")
    resources = {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": str(count)}
    labels = {
        "kubernetes.io/hostname": name,
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.memory": str(memory_mib),
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/gpu.compute.major": major,
        "nvidia.com/gpu.compute.minor": minor,
        "nvidia.com/gpu.family": "ada-lovelace",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]},
        "status": {
            "allocatable": resources,
            "capacity": resources,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def gpu_pod(name: str, node: str, gpus: int) -> dict[str, Any]:
    """Somebody else's pod."""
    resources = {"requests": {"nvidia.com/gpu": str(gpus)}, "limits": {"nvidia.com/gpu": str(gpus)}}
    return {
        "metadata": {"name": name, "namespace": "other", "uid": name},
        "spec": {"nodeName": node, "containers": [{"name": "c", "resources": resources}]},
        "status": {"phase": "Running"},
    }


def cpu_node(name: str, cpu: str = "8", memory: str = "32Gi") -> dict[str, Any]:
    node = gpu_node(name)
    node["metadata"]["labels"] = {"kubernetes.io/hostname": name}
    node["spec"] = {}
    resources = {"cpu": cpu, "memory": memory, "pods": "110"}
    node["status"] |= {"allocatable": resources, "capacity": resources}
    return node


@dataclass
class Simulation:
    """One LLMDeployment in a small cluster; `step` is one reconciliation, carried out."""

    spec: dict[str, Any] = field(
        default_factory=lambda: {"model": {"source": "hf://meta-llama/Llama-3.1-8B"}}
    )
    nodes: list[dict[str, Any]] = field(default_factory=lambda: [gpu_node("gpu-1")])
    options: EngineOptions = OPTIONS
    model: ModelState = field(default_factory=lambda: ModelResolved(summary()))
    name: str = "llama"
    now: datetime = START
    foreign_pods: list[dict[str, Any]] = field(default_factory=list)
    ahead: tuple[Key, ...] = ()
    taken: dict[ObjectRef, str] = field(default_factory=dict)
    refused: str | None = None
    ended_pod: dict[str, Any] | None = None
    review: bool = False
    calibration: Calibration = UNCALIBRATED
    installed_kinds: frozenset[str] = frozenset()
    children: dict[ObjectRef, dict[str, Any]] = field(default_factory=dict)
    pods: list[dict[str, Any]] = field(default_factory=list)
    reports: dict[str, RuntimeReport] = field(default_factory=dict)
    resolution: Resolution | None = None
    events: list[tuple[str, str]] = field(default_factory=list)
    created: int = 0

    def __post_init__(self) -> None:
        self.resource: dict[str, Any] = {
            "apiVersion": "stowage.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {"name": self.name, "namespace": "default", "uid": "uid-1", "generation": 1},
            "spec": {"replicas": 1, **self.spec},
        }

    @property
    def world(self) -> World:
        usages = [pod_usage(pod) for pod in (*self.pods, *self.foreign_pods)]
        bound = [usage for usage in usages if usage.node_name is not None]
        return World(
            key=Key("default", self.name),
            resource=copy.deepcopy(self.resource),
            children=copy.deepcopy(self.children),
            pods=tuple(copy.deepcopy(self.pods)),
            inventory=build_inventory([node_facts(node) for node in self.nodes], bound),
            options=self.options,
            ahead=self.ahead,
            resolution=self.resolution,
            reports=tuple(
                PodReport(
                    pod["metadata"]["name"],
                    pod["metadata"]["uid"],
                    self.now,
                    self.reports[pod["metadata"]["uid"]],
                )
                for pod in self.pods
                if pod["metadata"]["uid"] in self.reports
            ),
            installed_kinds=self.installed_kinds,
            taken=dict(self.taken),
            refused=self.refused,
            ended_pod=copy.deepcopy(self.ended_pod),
            calibration=self.calibration,
            review=self.review,
        )

    def edit(self, **spec: Any) -> None:
        """What a user's `kubectl apply` or `scale` does: merge top-level fields, bump the generation."""
        self.resource["spec"] |= spec
        self.resource["metadata"]["generation"] += 1

    def step(self) -> Outcome:
        """One reconciliation, then what the API server and the Deployment controller do with it."""
        outcome = reconcile(self.world, self.now)
        if outcome.resolve is not None:
            self.resolution = Resolution(outcome.resolve, self.model)
        if not self.taken and self.refused is None:
            for obj in outcome.apply:
                self._apply(obj)
        for ref in outcome.delete:
            self.children.pop(ref, None)
        if outcome.status is not None:
            self.resource["status"] = copy.deepcopy(dict(outcome.status))
        self.events += [(event.type, event.reason) for event in outcome.events]
        self.now += timedelta(seconds=1)
        return outcome

    def settle(self, steps: int = 4) -> Outcome:
        """Reconcile a few times, as resolutions and writes come back."""
        for _ in range(steps):
            outcome = self.step()
        return outcome

    def serve(self) -> None:
        """Settle, start the pods and let them become ready."""
        self.settle()
        self.run_pods()
        self.settle()

    def deployment(self) -> dict[str, Any] | None:
        return next((obj for ref, obj in self.children.items() if ref.kind == "Deployment"), None)

    def child(self, kind: str) -> dict[str, Any]:
        return next(obj for ref, obj in self.children.items() if ref.kind == kind)

    def kinds(self) -> list[str]:
        return sorted(ref.kind for ref in self.children)

    def run_pods(self, ready: bool = True) -> None:
        """Bring pods to the Deployment's replicas and template at once, on the node with most free GPUs."""
        deployment = self.deployment()
        assert deployment is not None
        template = deployment["spec"]["template"]
        self.pods = [pod for pod in self.pods if pod["stale"] == template]
        wanted = deployment["spec"]["replicas"]
        self.pods = self.pods[:wanted]
        while len(self.pods) < wanted:
            self.pods.append(self._pod(template))
        self._show(ready)

    def _show(self, ready: bool) -> None:
        deployment = self.deployment()
        assert deployment is not None
        count = len(self.pods)
        for pod in self.pods:
            pod["status"] = {
                "phase": "Running",
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "True" if ready else "False",
                        "lastTransitionTime": self.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    }
                ],
            }
        deployment["status"] = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": count,
            "updatedReplicas": count,
            "readyReplicas": count if ready else 0,
        }

    def run_placeable_pods(self, ready: bool) -> None:
        """As the scheduler and the kubelets would: old pods go first, new ones run where there is room."""
        deployment = self.deployment()
        if deployment is None:
            return
        template = deployment["spec"]["template"]
        self.pods = [pod for pod in self.pods if pod["stale"] == template][: deployment["spec"]["replicas"]]
        record = read_in_force(deployment)
        while record is not None and len(self.pods) < deployment["spec"]["replicas"]:
            places = place_replicas(record.plan, self.world.inventory, 1)
            if not places:
                break
            self.pods.append(self._pod(template, places[0]))
        self._show(ready)

    def add_unbound_pod(self) -> None:
        """The Deployment controller creates a pod of the current template that the scheduler cannot place."""
        deployment = self.deployment()
        assert deployment is not None
        pod = self._pod(deployment["spec"]["template"])
        del pod["spec"]["nodeName"]
        pod["status"] = {"phase": "Pending", "conditions": []}
        self.pods.append(pod)

    def report(self, kv_cache_tokens: int = 10_000, **utilization: Any) -> None:
        """Every pod's agent reports Serving with that number of KV-cache tokens."""
        figures = {
            "kv_usage": 0.0,
            "running": 0,
            "waiting": 0,
            "preemptions_total": 0,
            "prompt_tokens_total": 0,
            "generation_tokens_total": 0,
            "request_success_total": 0,
            **utilization,
        }
        for pod in self.pods:
            self.reports[pod["metadata"]["uid"]] = RuntimeReport(
                phase="Serving",
                phase_since="2026-01-01T00:00:00Z",
                started_at="2026-01-01T00:00:00Z",
                launch_hash="0" * 64,
                engine=EngineFacts(
                    kind="vllm", version="0.32.0", kv_cache_tokens=kv_cache_tokens, block_size=16
                ),
                utilization=Utilization(**figures),
            )

    def condition(self, kind: str) -> tuple[str, str, str]:
        """Status, reason and message of one condition."""
        found = next(item for item in self.resource["status"]["conditions"] if item["type"] == kind)
        return found["status"], found["reason"], found["message"]

    def fail_model(self, failed: ModelFailed) -> None:
        self.model = failed

    def upgrade(self, version: str) -> None:
        """A newer operator: another agent image."""
        self.options = replace(self.options, agent_image=f"ghcr.io/stowage-dev/stowage:{version}")

    def _apply(self, obj: Mapping[str, Any]) -> None:
        ref = ObjectRef.of(obj)
        live = self.children.get(ref)
        new = copy.deepcopy(dict(obj))
        if live is None:
            self.created += 1
            new["metadata"] |= {"uid": f"child-{self.created}", "generation": 1}
        else:
            changed = live["spec"] != new["spec"] if "spec" in new else False
            generation = live["metadata"]["generation"] + int(changed)
            new["metadata"] |= {"uid": live["metadata"]["uid"], "generation": generation}
            if "status" in live:
                new["status"] = live["status"]
        self.children[ref] = new

    def _pod(self, template: Mapping[str, Any], node: str | None = None) -> dict[str, Any]:
        self.created += 1
        pod = copy.deepcopy(dict(template))
        pod["metadata"] |= {
            "name": f"{self.name}-{self.created}",
            "namespace": "default",
            "uid": f"pod-{self.created}",
            "ownerReferences": [
                {"uid": "replica-set", "kind": "ReplicaSet", "name": "rs", "controller": True}
            ],
        }
        selector = pod["spec"].get("nodeSelector", {})
        fitting = [
            room.facts.name
            for room in self.world.inventory.nodes
            if all(room.facts.labels.get(key) == value for key, value in selector.items())
        ]
        pod["spec"]["nodeName"] = node or max(
            fitting,
            key=lambda name: next(r.free_gpus for r in self.world.inventory.nodes if r.facts.name == name),
        )
        pod["stale"] = copy.deepcopy(dict(template))
        return pod
