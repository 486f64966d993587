"""Our rules of writing, against the real API server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from e2e.controlplane.fixtures import Kubectl
from stowage.kube.applier import Applier
from stowage.kube.client import KubeClient, Selector
from stowage.kube.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound, Unreachable
from stowage.kube.kinds import CONFIG_MAP, DEPLOYMENT, LLM_DEPLOYMENT, POD_MONITOR
from stowage.kube.recorder import event_object
from stowage.kube.store import Store
from stowage.world import EventIntent, Key, ObjectRef
from tests.kube.objects import labels

pytestmark = pytest.mark.cluster


def owner_map(namespace: str) -> dict[str, Any]:
    """Stands for an LLMDeployment: any object with a uid can own others."""
    metadata = {"name": "owner", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def intent(
    namespace: str, owner: dict[str, Any], name: str = "llama-launch", data: str = "{}"
) -> dict[str, Any]:
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": labels(),
        "ownerReferences": [reference],
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"launch.json": data}}


async def made_owner(client: KubeClient, namespace: str) -> dict[str, Any]:
    return await client.apply(owner_map(namespace))


async def test_an_identical_apply_leaves_the_version_alone(client: KubeClient, namespace: str) -> None:
    owner = await made_owner(client, namespace)
    first = await client.apply(intent(namespace, owner))
    second = await client.apply(intent(namespace, owner))
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    assert [entry["manager"] for entry in first["metadata"]["managedFields"]] == ["stowage"]


async def test_apply_with_a_uid_meets_only_that_object(client: KubeClient, namespace: str) -> None:
    owner = await made_owner(client, namespace)
    wanted = intent(namespace, owner)
    wanted["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000"
    with pytest.raises(Conflict):
        await client.apply(wanted)
    await client.apply(intent(namespace, owner))
    with pytest.raises(Conflict):
        await client.apply(wanted)


async def test_applier_writes_once_puts_back_and_skips(
    client: KubeClient, namespace: str, kubectl: Kubectl
) -> None:
    owner, store = await made_owner(client, namespace), Store()
    key, uid = Key(namespace, "llama"), owner["metadata"]["uid"]
    subject = Applier(client, store)
    wanted = intent(namespace, owner)
    counts = [(await subject.apply(key, uid, [wanted])).writes for _ in range(3)]
    assert counts == [1, 0, 0]
    kubectl("patch", "cm", "llama-launch", "-n", namespace, "-p", '{"data":{"launch.json":"edited"}}')
    ref = ObjectRef.of(wanted)
    store.observe(CONFIG_MAP, await client.get(ref))
    assert (await subject.apply(key, uid, [wanted])).writes == 1
    assert (await client.get(ref))["data"] == {"launch.json": "{}"}


async def test_a_field_that_is_no_longer_wanted_goes_away(client: KubeClient, namespace: str) -> None:
    owner = await made_owner(client, namespace)
    more = intent(namespace, owner)
    more["data"]["other"] = "1"
    await client.apply(more)
    assert set((await client.apply(intent(namespace, owner)))["data"]) == {"launch.json"}


async def test_a_foreign_object_of_that_name_stays_as_it_is(
    client: KubeClient, namespace: str, kubectl: Kubectl
) -> None:
    owner = await made_owner(client, namespace)
    kubectl("create", "configmap", "llama-launch", "-n", namespace, "--from-literal=mine=1")
    subject = Applier(client, Store())
    before = await client.get(ObjectRef("v1", "ConfigMap", namespace, "llama-launch"))
    applied = await subject.apply(
        Key(namespace, "llama"), owner["metadata"]["uid"], [intent(namespace, owner)]
    )
    after = await client.get(ObjectRef("v1", "ConfigMap", namespace, "llama-launch"))
    assert list(applied.taken.values()) == [f"ConfigMap {namespace}/llama-launch, which Stowage did not make"]
    assert before == after


async def test_an_object_with_a_deletion_timestamp_gets_no_apply(
    client: KubeClient, namespace: str, kubectl: Kubectl
) -> None:
    owner, store = await made_owner(client, namespace), Store()
    held = intent(namespace, owner)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await client.apply(held)
    kubectl("delete", "cm", "llama-launch", "-n", namespace, "--wait=false")
    subject = Applier(client, store)
    key, uid = Key(namespace, "llama"), owner["metadata"]["uid"]
    applied = await subject.apply(key, uid, [intent(namespace, owner)])
    assert (applied.writes, [ref.name for ref in applied.waiting]) == (0, ["llama-launch"])
    patch = json.dumps({"metadata": {"finalizers": None}})
    kubectl("patch", "cm", "llama-launch", "-n", namespace, "--type=merge", "-p", patch)


async def test_delete_with_a_foreign_uid_is_refused(client: KubeClient, namespace: str) -> None:
    owner = await made_owner(client, namespace)
    ref = ObjectRef.of(owner)
    with pytest.raises(Conflict):
        await client.delete(ref, "00000000-0000-0000-0000-000000000000")
    await client.delete(ref, owner["metadata"]["uid"])
    with pytest.raises(NotFound):
        await client.get(ref)


async def test_a_list_comes_in_pages_with_kinds_and_one_version(
    client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stowage.kube.client.PAGE_SIZE", 2)
    owner = await made_owner(client, namespace)
    for number in range(5):
        await client.apply(intent(namespace, owner, f"llama-{number}"))
    selector = Selector(label="app.kubernetes.io/managed-by=stowage")
    pages = [page async for page in client.list_pages(CONFIG_MAP, namespace, selector)]
    assert [len(page.items) for page in pages] == [2, 2, 1]
    assert {item["kind"] for page in pages for item in page.items} == {"ConfigMap"}
    assert len({page.resource_version for page in pages}) == 1


async def test_a_resync_prunes_what_no_watch_reported(
    client: KubeClient, namespace: str, kubectl: Kubectl
) -> None:
    owner, store = await made_owner(client, namespace), Store()
    store.observe(CONFIG_MAP, await client.apply(intent(namespace, owner)))
    kubectl("delete", "cm", "llama-launch", "-n", namespace)
    pages = [page async for page in client.list_pages(CONFIG_MAP, namespace)]
    items = [item for page in pages for item in page.items]
    change = store.replace(CONFIG_MAP, items, pages[-1].resource_version, namespace)
    assert change.ghosts == 1
    assert change.keys == {Key(namespace, "llama")}


async def test_refusals_are_typed(client: KubeClient, namespace: str) -> None:
    deployment = {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.kind,
        "metadata": {"name": "x", "namespace": namespace},
        "spec": {"replicas": -1},
    }
    with pytest.raises(Invalid, match="replicas"):
        await client.apply(deployment)
    with pytest.raises(AlreadyExists):
        await client.create(
            {**owner_map(namespace), "metadata": {"name": "kube-root-ca.crt", "namespace": namespace}}
        )
    with pytest.raises(NotFound):
        await client.apply({**owner_map("no-such-namespace")})


async def test_an_event_is_accepted_and_shown(client: KubeClient, namespace: str, kubectl: Kubectl) -> None:
    owner = await made_owner(client, namespace)
    note = EventIntent("Warning", "InsufficientGPUs", "Plan", "Nothing is free.")
    await client.create(event_object(owner, note, "pod-1", datetime.now(UTC)))
    shown = kubectl("events", "-n", namespace, "--for", "configmap/owner").stdout
    assert "InsufficientGPUs" in shown
    assert "Nothing is free." in shown


async def test_kinds_are_discovered(client: KubeClient) -> None:
    assert await client.serves(DEPLOYMENT)
    assert not await client.serves(POD_MONITOR)
    assert not await client.serves(LLM_DEPLOYMENT._replace(api_version="stowage.dev/v9"))


async def test_without_rights_the_error_says_so(client: KubeClient, cluster: Any, namespace: str) -> None:
    weak = KubeClient(client.configuration)
    token = cluster.token(namespace, "default")
    weak._configuration = await _with_token(client, token)
    weak._rest = KubeClient(weak._configuration)._rest
    with pytest.raises(Forbidden, match="cannot get resource"):
        await weak.get(ObjectRef("v1", "ConfigMap", namespace, "kube-root-ca.crt"))
    await weak.close()


async def _with_token(client: KubeClient, token: str) -> Any:
    from kubernetes.aio.client.configuration import Configuration

    configuration = Configuration(host=client.configuration.host)
    configuration.ssl_ca_cert = client.configuration.ssl_ca_cert
    configuration.api_key = {"BearerToken": f"Bearer {token}"}
    configuration.retries = None
    return configuration


async def test_a_dead_server_is_unreachable_within_the_time_out(client: KubeClient) -> None:
    from kubernetes.aio.client.configuration import Configuration

    nowhere = KubeClient(Configuration(host="https://127.0.0.1:9"), timeout_seconds=2.0)
    with pytest.raises(Unreachable):
        await nowhere.get(ObjectRef("v1", "ConfigMap", "default", "x"))
    await nowhere.close()
