"""The Job of an accuracy check on the real API server: it is taken, makes one pod, and its pod is found again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import stowage.engine.plan_step as plan_step
from e2e.controlplane.fixtures import Kubectl
from stowage.api.v1alpha1 import LLMDeploymentSpec, parse_spec
from stowage.api.v1alpha1.precision import AccuracySpec
from stowage.feed.job_pods import JobPods
from stowage.hardware.inventory import Inventory
from stowage.kube.client import KubeClient, Selector
from stowage.kube.facts import job_has_ended
from stowage.kube.kinds import JOB, POD
from stowage.kube.store import Store
from stowage.planning.plan import PlanRequest, PlanResult, plan
from stowage.render import names
from stowage.render.accuracy_job import Comparison, accuracy_config_map, accuracy_job
from stowage.world import Key, ObjectRef
from tests.engine.simulation import OPTIONS, Simulation, gpu_node

pytestmark = pytest.mark.cluster

CHECK_ID = "0123456789abcdef" * 2


def comparison() -> Comparison:
    found: list[PlanResult] = []

    def planner(request: PlanRequest, inventory: Inventory) -> PlanResult:
        found.append(plan(request, inventory))
        return found[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan_step, "plan", planner)
        Simulation(nodes=[gpu_node("gpu-1", 2)]).settle()
    exact = found[0].plan
    assert exact is not None
    lossy = replace(exact, settings=replace(exact.settings, quantization="fp8"), lossy="fp8 on load")
    return Comparison(
        CHECK_ID, lossy, exact, AccuracySpec.model_validate({"promptsRef": {"configMap": "questions"}})
    )


def spec() -> LLMDeploymentSpec:
    precision = {"policy": "EightBit", "accuracy": {"promptsRef": {"configMap": "questions"}}}
    found = parse_spec({"model": {"source": "hf://org/llama"}, "precision": precision})
    assert isinstance(found, LLMDeploymentSpec)
    return found


async def wait(what: Callable[[], Any], until: Callable[[Any], bool], seconds: float = 60.0) -> Any:
    import asyncio

    deadline = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < deadline:
        found = await what()
        if until(found):
            return found
        await asyncio.sleep(0.3)
    raise AssertionError(f"waited {seconds} s; the last answer was {found}")


async def test_it_is_taken_once_and_its_ended_pod_is_found_by_its_label(
    client: KubeClient, namespace: str, kubectl: Kubectl
) -> None:
    owner = await client.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "llama", "namespace": namespace}}
    )
    what, wish = comparison(), spec()
    await client.apply(accuracy_config_map(owner, wish, what, OPTIONS))
    job = await client.apply(accuracy_job(owner, wish, what, OPTIONS))
    again = await client.apply(accuracy_job(owner, wish, what, OPTIONS))
    assert again["metadata"]["uid"] == job["metadata"]["uid"]
    assert job["spec"]["backoffLimit"] == 0
    ref = ObjectRef(JOB.api_version, JOB.kind, namespace, job["metadata"]["name"])
    label = Selector(label=f"batch.kubernetes.io/job-name={ref.name}")

    async def pods() -> list[dict[str, Any]]:
        return [pod async for page in client.list_pages(POD, namespace, label) for pod in page.items]

    (pod,) = await wait(pods, bool)
    assert pod["metadata"]["labels"][names.ROLE_LABEL] == names.ACCURACY_ROLE
    end = {"phase": "Failed", "reason": "NodeShutdown", "message": "The node was shut down."}
    patch = json.dumps({"status": end})
    kubectl(
        *("-n", namespace, "patch", "pod", pod["metadata"]["name"], "--subresource=status"),
        *("--type=merge", "-p", patch),
    )
    job = await wait(lambda: client.get(ref), job_has_ended)

    store = Store()
    key = Key(namespace, "llama")
    store.observe(JOB, job)
    found = JobPods(client, store)
    change = await found.look(key)
    assert key in change.keys
    (child,) = [obj for each, obj in store.children(key).items() if each.kind == POD.kind]
    assert child["status"]["reason"] == "NodeShutdown"
    assert store.ended(key)
    assert not (await found.look(key)).keys  # once is enough
    await client.delete(ref, job["metadata"]["uid"])
