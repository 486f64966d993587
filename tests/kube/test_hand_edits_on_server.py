"""Edits by hand that an apply alone cannot undo, against the real API server.

A list that is keyed by the very field that was edited, or a choice of which another branch was filled in: the merge of
our fields with those of somebody else is refused as invalid.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.controlplane.cluster import Cluster
from e2e.controlplane.fixtures import Kubectl
from stowage.kube.applier import Applied, Applier
from stowage.kube.client import KubeClient
from stowage.kube.errors import Invalid
from stowage.kube.kinds import kind_of
from stowage.kube.store import Store
from stowage.world import Key, ObjectRef

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
Patch = list[Json]

_RENDERED = Path(__file__).parents[1] / "render" / "golden" / "minimal.yaml"
OURS = ("stowage", "Apply")
_ENGINE = "/spec/template/spec/containers/0"


def replace(path: str, value: Any) -> Patch:
    return [{"op": "replace", "path": path, "value": value}]


class Scene:
    """One rendered object of ours in a namespace, and the applier that keeps it."""

    def __init__(self, client: KubeClient, namespace: str, kubectl: Kubectl) -> None:
        self.client, self.namespace, self.kubectl = client, namespace, kubectl
        self.store = Store()
        self.applier = Applier(client, self.store)
        self.key = Key(namespace, "llama")
        self.owner: Json = {}

    async def prepare(self) -> None:
        metadata = {"name": "owner", "namespace": self.namespace}
        self.owner = await self.client.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})

    def intent(self, kind: str) -> Json:
        """What the renderer makes, owned by an object that exists, so that nothing collects it."""
        documents = yaml.safe_load_all(_RENDERED.read_text())
        wanted: Json = next(item for item in documents if item["kind"] == kind)
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "controller": True}
        reference["uid"] = self.owner["metadata"]["uid"]
        wanted["metadata"] |= {"namespace": self.namespace, "ownerReferences": [reference]}
        if kind == "Deployment":
            wanted["spec"]["replicas"] = 0
        return wanted

    async def converge(self, wanted: Json) -> Applied:
        """Look and apply, again where a controller wrote in between."""
        ref = ObjectRef.of(wanted)
        async with asyncio.timeout(30.0):
            while True:
                if self.store.get(ref) is not None:
                    self.store.observe(kind_of(ref), await self.client.get(ref))
                applied = await self.applier.apply(self.key, self.owner["metadata"]["uid"], [wanted])
                if not applied.stale:
                    return applied

    async def live(self, wanted: Json) -> Json:
        return await self.client.get(ObjectRef.of(wanted))

    async def settled(self, wanted: Json) -> None:
        """Return once the controller of the object has seen its last version."""
        async with asyncio.timeout(30.0):
            while True:
                live = await self.live(wanted)
                generation = live["metadata"].get("generation")
                seen = (live.get("status") or {}).get("observedGeneration")
                if generation is None or seen == generation:
                    return
                await asyncio.sleep(0.1)

    def edit(self, wanted: Json, patch: Patch, manager: str = "kubectl-edit") -> None:
        metadata = wanted["metadata"]
        arguments = (f"{wanted['kind']}/{metadata['name']}", "-n", self.namespace, "--type=json")
        self.kubectl("patch", *arguments, f"--field-manager={manager}", "-p", json.dumps(patch))


@pytest.fixture
async def scene(client: KubeClient, namespace: str, kubectl: Kubectl) -> Scene:
    made = Scene(client, namespace, kubectl)
    await made.prepare()
    return made


def owners_of_spec(live: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Who holds a field of the object's own content, and how."""
    entries = live["metadata"]["managedFields"]
    return [
        (entry["manager"], entry["operation"])
        for entry in entries
        if "f:spec" in entry["fieldsV1"] and "subresource" not in entry
    ]


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        pytest.param("Service", replace("/spec/ports/0/port", 9000), id="the port number of the Service"),
        pytest.param(
            "Service", replace("/spec/ports/0/protocol", "UDP"), id="the port protocol of the Service"
        ),
        pytest.param(
            "Deployment", replace(f"{_ENGINE}/ports/0/containerPort", 9000), id="the port of a container"
        ),
        pytest.param(
            "Deployment",
            replace(
                f"{_ENGINE}/env/4",
                {"name": "HOME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            ),
            id="the source of a variable",
        ),
        pytest.param(
            "Deployment",
            replace("/spec/template/spec/volumes/2", {"name": "cache", "hostPath": {"path": "/data"}}),
            id="the kind of a volume",
        ),
        pytest.param(
            "Deployment",
            replace(f"{_ENGINE}/livenessProbe", {"tcpSocket": {"port": 8000}}),
            id="the way of a probe",
        ),
        pytest.param(
            "PodDisruptionBudget",
            [
                {"op": "remove", "path": "/spec/maxUnavailable"},
                {"op": "add", "path": "/spec/minAvailable", "value": 1},
            ],
            id="the other limit of the budget",
        ),
    ],
)
async def test_it_is_put_back_and_then_nothing_is_written(scene: Scene, kind: str, patch: Patch) -> None:
    wanted = scene.intent(kind)
    await scene.converge(wanted)
    before = await scene.live(wanted)
    scene.edit(wanted, patch)
    assert (await scene.live(wanted))["spec"] != before["spec"]

    assert (await scene.converge(wanted)).writes > 0
    after = await scene.live(wanted)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert owners_of_spec(after) == [OURS]
    await assert_quiet(scene, wanted)


async def assert_quiet(scene: Scene, wanted: Json) -> None:
    """Once its controller has taken note of the object, which changes it, nothing is written any more."""
    await scene.settled(wanted)
    await scene.converge(wanted)
    version = (await scene.live(wanted))["metadata"]["resourceVersion"]
    assert (await scene.converge(wanted)).writes == 0
    assert (await scene.live(wanted))["metadata"]["resourceVersion"] == version


async def test_an_edit_in_an_editor_is_put_back_as_often_as_it_is_made(
    scene: Scene, cluster: Cluster, namespace: str
) -> None:
    wanted = scene.intent("Service")
    await scene.converge(wanted)
    address = (await scene.live(wanted))["spec"]["clusterIP"]
    for number in ("9000", "9001"):
        environment = {**cluster.environment, "KUBE_EDITOR": f"sed -i 's/port: 8000/port: {number}/'"}
        command = [*cluster.kubectl_command, "edit", "service/llama", "-n", namespace]
        editing = await asyncio.create_subprocess_exec(*command, env=environment, stdout=subprocess.DEVNULL)
        async with asyncio.timeout(60.0):
            assert await editing.wait() == 0
        assert [port["port"] for port in (await scene.live(wanted))["spec"]["ports"]] == [int(number)]
        assert (await scene.converge(wanted)).writes == 2
        spec = (await scene.live(wanted))["spec"]
        assert [port["port"] for port in spec["ports"]] == [8000]
        assert spec["clusterIP"] == address


async def test_what_another_applier_holds_is_put_back_too(
    scene: Scene, kubectl: Kubectl, namespace: str
) -> None:
    wanted = scene.intent("Service")
    await scene.converge(wanted)
    other = {**wanted, "metadata": {"name": "llama"}, "spec": {"ports": [{"name": "http", "port": 9000}]}}
    flags = ("--server-side", "--field-manager=gitops", "--force-conflicts", "-n", namespace, "-f", "-")
    scene.edit(wanted, replace("/spec/ports/0/port", 9000))
    kubectl("apply", *flags, input_text=json.dumps(other))
    await scene.converge(wanted)
    assert [port["port"] for port in (await scene.live(wanted))["spec"]["ports"]] == [8000]
    assert owners_of_spec(await scene.live(wanted)) == [OURS]


async def test_only_what_the_refusal_names_is_taken_over(scene: Scene) -> None:
    """A restart that somebody asked for must not be taken back: that would be another restart."""
    wanted = scene.intent("Deployment")
    await scene.converge(wanted)
    restarted = "/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt"
    scene.edit(wanted, [{"op": "add", "path": restarted, "value": "now"}])
    scene.edit(wanted, replace(f"{_ENGINE}/ports/0/containerPort", 9000))
    await scene.converge(wanted)
    template = (await scene.live(wanted))["spec"]["template"]
    assert template["spec"]["containers"][0]["ports"][0]["containerPort"] == 8000
    assert template["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] == "now"


async def test_an_intent_that_is_invalid_by_itself_changes_nothing(scene: Scene) -> None:
    wanted = scene.intent("Service")
    await scene.converge(wanted)
    scene.edit(wanted, [{"op": "add", "path": "/spec/externalIPs", "value": ["192.0.2.1"]}])
    before = await scene.live(wanted)
    broken = {**wanted, "spec": {**wanted["spec"], "sessionAffinity": "Sometimes"}}
    for _ in range(2):
        with pytest.raises(Invalid, match="sessionAffinity"):
            await scene.converge(broken)
    assert await scene.live(wanted) == before
