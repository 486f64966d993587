"""The scenes of the demo, in order. Each shows one promise with real commands and raises if it is not kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from e2e.controlplane.inside_http import InsideConnection
from e2e.demo.manifests import LLAMA_8B, LLAMA_70B, REFUSED_70B, TINY, TINY_ON_L4
from e2e.demo.stage import DemoFailed, Stage
from e2e.stack import Stack

Scene = Callable[[Stage, Stack], None]

_PLAN_SECONDS = 60.0
_START_SECONDS = 600.0
_SIMULATED_SECONDS = 120.0
_AS_OPERATOR = "--as=system:serviceaccount:stowage-system:stowage"
_WIDE = ("get", "llmd", "-o", "wide")


def cluster_scene(stage: Stage, _: Stack) -> None:
    """The cluster: real control plane, simulated GPU nodes, one node that runs pods."""
    stage.scene("A real control plane, simulated GPU nodes and a CPU node that runs pods")
    stage.kubectl("version")
    stage.kubectl("get", "nodes", "-L", "nvidia.com/gpu.product,nvidia.com/gpu.count,nvidia.com/gpu.memory")
    stage.say("The operator runs with its own ServiceAccount; it may not read Secrets:")
    stage.kubectl("auth", "can-i", "get", "secrets", "-A", _AS_OPERATOR, refused_is_fine=True)


def plan_scene(stage: Stage, _: Stack) -> None:
    """Two plans without launching anything."""
    stage.scene("What would it take? Plans for Llama-3.1-8B and 70B (mode: Plan)")
    _apply(stage, LLAMA_8B)
    _apply(stage, LLAMA_70B)
    for name in ("llama-8b", "llama-70b"):
        _wait_for_condition(stage, name, "Planned", "True", _PLAN_SECONDS)
    stage.kubectl(*_WIDE)
    for name in ("llama-8b", "llama-70b"):
        _show_plan(stage, name)


def refusal_scene(stage: Stage, _: Stack) -> None:
    """A refusal that a person can act on."""
    stage.scene("70B on L4 cards only: refused, with the reason and what would fit")
    _apply(stage, REFUSED_70B)
    _wait_for_condition(stage, "llama-70b-on-l4", "Planned", "False", _PLAN_SECONDS)
    stage.kubectl("get", "llmd", "llama-70b-on-l4")
    status = _status(stage, "llama-70b-on-l4")
    planned = next(item for item in status["conditions"] if item["type"] == "Planned")
    stage.show(f"Planned=False, {planned['reason']}", planned["message"])
    _show_plan(stage, "llama-70b-on-l4")


def simulated_gpu_scene(stage: Stage, _: Stack) -> None:
    """A launch on a simulated GPU node, where a stand-in engine answers and says so."""
    stage.scene("Launched on a simulated GPU node: a stand-in answers there, not vLLM")
    stage.say("There is no GPU in this machine. The pod holds an nvidia.com/gpu of the node,")
    stage.say("and in it a stand-in answers; status.engine says so and measures nothing.")
    _apply(stage, TINY_ON_L4)
    with stage.watching("get", "llmd", "tiny-on-l4"):
        _wait_for_condition(stage, "tiny-on-l4", "Ready", "True", _SIMULATED_SECONDS)
    engine = stage.wait(
        "the stand-in's figures", lambda: _status(stage, "tiny-on-l4").get("engine"), _PLAN_SECONDS
    )
    stage.show(f"status.engine of tiny-on-l4 (kind: {engine['kind']})", engine["summary"])
    if engine["kind"] != "simulated":
        raise DemoFailed(f"a stand-in engine is reported as {engine['kind']}")


def serve_scene(stage: Stage, stack: Stack) -> None:
    """Real vLLM on the CPU node."""
    stage.scene("From `kubectl apply` to served tokens: a tiny Llama on real vLLM (CPU build)")
    stage.say("vLLM itself takes one to two minutes to start on two cores.")
    _apply(stage, TINY)
    started = time.monotonic()
    with stage.watching("get", "llmd", "tiny"):
        _wait_for_condition(stage, "tiny", "Ready", "True", _START_SECONDS)
    stage.say(f"Ready {time.monotonic() - started:.0f} s after apply: the agent has seen a real completion.")
    stage.kubectl(
        "get", "deployments,services,configmaps,poddisruptionbudgets,pods", "-l", "stowage.dev/name=tiny"
    )
    _ask(stage, stack)


def measure_scene(stage: Stage, _: Stack) -> None:
    """Predicted against measured."""
    stage.scene("The prediction, checked against the engine's own figures")
    engine = stage.wait("the engine's figures", lambda: _status(stage, "tiny").get("engine"), _PLAN_SECONDS)
    predicted, measured = engine["predicted"]["kvTokens"], engine["measured"]["kvTokens"]
    stage.show(f"status.engine (vLLM {engine['version']})", engine["summary"])
    if predicted != measured:
        raise DemoFailed(f"{predicted} KV tokens were predicted and {measured} measured")
    stage.say("Equal to the token: on CPU nodes the KV bytes are pinned, so the count is exact.")


def scale_scene(stage: Stage, _: Stack) -> None:
    """The scale subresource."""
    stage.scene("Scaling through the scale subresource, as an HPA would")
    stage.kubectl("scale", "llmd/tiny", "--replicas=2")
    with stage.watching("get", "llmd", "tiny"):
        stage.wait("two replicas", lambda: _status(stage, "tiny").get("readyReplicas") == 2, _START_SECONDS)
    stage.kubectl("get", "pods", "-l", "stowage.dev/name=tiny", "-o", "wide")
    stage.kubectl(
        "get",
        "events",
        "--field-selector",
        "involvedObject.name=tiny",
        "--sort-by=.metadata.creationTimestamp",
    )
    stage.say("Everything side by side:")
    stage.kubectl("get", "llmd")


def deletion_scene(stage: Stage, _: Stack) -> None:
    """Deletion leaves nothing behind."""
    stage.scene("Deletion leaves nothing behind")
    stage.kubectl("delete", "llmd", "--all")

    def gone() -> bool:
        kinds = "deployments,replicasets,services,configmaps,poddisruptionbudgets,pods"
        left = stage.cluster.get(kinds, "-l", "app.kubernetes.io/managed-by=stowage")
        return not left["items"]

    stage.wait("every object to be gone", gone, 180.0)
    stage.kubectl("get", "all,configmaps,pdb", "-l", "app.kubernetes.io/managed-by=stowage")
    stage.say("No Deployment, ReplicaSet, Pod, Service, ConfigMap or PodDisruptionBudget is left.")


_PLANNING: tuple[Scene, ...] = (cluster_scene, plan_scene, refusal_scene)
_RUNNING: tuple[Scene, ...] = (simulated_gpu_scene, serve_scene, measure_scene, scale_scene)


def no_pods_scene(stage: Stage, _: Stack) -> None:
    """Say what is left out, and what would show it."""
    stage.scene("From here on pods would run")
    stage.say("This machine lets nobody but root make mount namespaces, so no pod can get its volumes:")
    stage.say("run the demo as root, or allow unprivileged user namespaces, to see a model served.")


def scenes_on(stack: Stack) -> tuple[Scene, ...]:
    """Give the scenes that this machine can show, in order; which are left out is one of them."""
    running = _RUNNING if stack.runs_pods else (no_pods_scene,)
    return (*_PLANNING, *running, deletion_scene)


def _wait_for_condition(stage: Stage, name: str, kind: str, status: str, seconds: float) -> None:
    stage.wait(f"{kind}={status} of {name}", lambda: _condition(stage, name, kind) == status, seconds)


def _apply(stage: Stage, document: Mapping[str, Any]) -> None:
    stage.kubectl("apply", "-f", "-", input_text=yaml.safe_dump(dict(document), sort_keys=False))


def _status(stage: Stage, name: str) -> dict[str, Any]:
    status: dict[str, Any] = stage.cluster.get("llmd", name).get("status") or {}
    return status


def _condition(stage: Stage, name: str, kind: str) -> str | None:
    for item in _status(stage, name).get("conditions") or ():
        if item["type"] == kind:
            return str(item["status"])
    return None


def _show_plan(stage: Stage, name: str) -> None:
    plan = _status(stage, name)["plan"]
    lines = [plan["summary"], ""]
    ledger = plan.get("ledger")
    if ledger:
        order = (
            "total",
            "budget",
            "weights",
            "persistent",
            "nonTorch",
            "activations",
            "cudaGraphs",
            "kvCache",
        )
        lines += [f"{key:<12} {ledger.get(key, 0) / (1 << 30):8.2f} GiB" for key in order]
        lines += [f"KV cache holds {plan['kvTokens']:,} tokens.", ""]
    lines += [f"- {note}" for note in plan.get("notes") or ()]
    for rejection in plan.get("rejections") or ():
        lines.append(f"not: {rejection['example']} [{rejection['reason']}, {rejection['count']}x]")
    stage.show(f"status.plan of {name}", "\n".join(lines))


def _ask(stage: Stage, stack: Stack) -> None:
    namespace = stack.cluster.namespace
    if namespace.isolated:
        host = stage.cluster.get("service", "tiny")["spec"]["clusterIP"]
        stage.say(f"A chat completion through the Service (http://{host}:8000):")
    else:
        pods = stage.cluster.get("pods", "-l", "stowage.dev/name=tiny")["items"]
        host = pods[0]["status"]["podIP"]
        stage.say(f"A chat completion at the pod's address (no Service addresses on plain loopback): {host}")
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "What does a stowage plan do?"}],
        "max_tokens": 16,
    }
    connection = InsideConnection(namespace, host, 8000, timeout_seconds=60.0)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status != 200:
        raise DemoFailed(f"the chat completion was answered with {answer.status}: {text}")
    usage = json.loads(text)["usage"]
    stage.show(
        "answered",
        f"{usage['completion_tokens']} tokens (random weights, so random words), prompt of {usage['prompt_tokens']}.",
    )
