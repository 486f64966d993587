"""What others do to the objects of a serving LLMDeployment is put right, and nothing serves less than it must."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.workspace import Workspace


def test_children_that_are_deleted_are_put_back(workspace: Workspace) -> None:
    workspace.serve()
    before, pods = workspace.rendered(), workspace.pod_uids()
    launch = next(name for name in before if name.startswith("configmaps/"))
    workspace.kubectl("delete", "service/llm", "poddisruptionbudget/llm", launch)
    workspace.wait("everything to be back", lambda: workspace.rendered() == before)
    workspace.wait_ready()
    assert workspace.pod_uids() == pods


def test_children_that_are_edited_are_put_back(workspace: Workspace) -> None:
    workspace.serve()
    pods = workspace.pod_uids()

    def specs() -> list[Any]:
        deployment, service = workspace.need("deployments")["spec"], workspace.need("services")["spec"]
        return [deployment["replicas"], deployment["template"], service["selector"]]

    before = specs()
    workspace.kubectl("scale", "deployment/llm", "--replicas=2")
    selector = [{"op": "replace", "path": "/spec/selector/stowage.dev~1name", "value": "nobody"}]
    workspace.kubectl("patch", "service/llm", "--type=json", "-p", json.dumps(selector))
    workspace.wait("everything as it was", lambda: specs() == before)
    workspace.wait("the first pod alone", lambda: workspace.pod_uids() == pods)
    # Another template costs the pod, whoever wrote it.
    workspace.kubectl("set", "image", "deployment/llm", "engine=busybox:1")
    workspace.wait("the template as it was", lambda: specs() == before)
    workspace.wait_ready()


def test_a_deployment_that_is_deleted_is_made_again_for_the_same_plan(workspace: Workspace) -> None:
    workspace.serve()
    plan, uid = workspace.status()["plan"], workspace.need("deployments")["metadata"]["uid"]
    workspace.kubectl("delete", "deployment/llm", "--wait=false")

    def made_again() -> bool:
        found = workspace.get("deployments", "llm")
        return found is not None and found["metadata"]["uid"] != uid

    workspace.wait("another Deployment", made_again)
    workspace.wait_ready()
    assert workspace.status()["plan"] == plan


def test_a_pod_that_is_deleted_comes_back(workspace: Workspace) -> None:
    workspace.serve()
    (old,) = workspace.pods()
    workspace.kubectl("delete", "pod", old["metadata"]["name"], "--grace-period=0", "--force")
    workspace.wait("another pod", lambda: workspace.pod_uids() - {old["metadata"]["uid"]})
    workspace.wait_ready()


def test_a_lost_status_changes_nothing(workspace: Workspace) -> None:
    workspace.serve()
    before, plan = workspace.pod_uids(), workspace.status()["plan"]
    lost = '{"status":{"conditions":null,"plan":null,"observedGeneration":null}}'
    workspace.kubectl("patch", "llmd", "llm", "--subresource=status", "--type=merge", "-p", lost)
    workspace.wait_ready()
    assert workspace.pod_uids() == before
    assert workspace.status()["plan"] == plan
    assert workspace.need("deployments")["metadata"]["generation"] == 1
