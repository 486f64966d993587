"""What users do to a serving object: edit it, scale it, look at it."""

from __future__ import annotations

import json

import pytest

from tests.e2e.workspace import Json, Workspace

COLUMNS = ["NAME", "MODEL", "READY", "REASON", "REPLICAS", "GPUS", "PARALLEL", "PRECISION", "KV%", "AGE"]


def edit(workspace: Workspace, **spec: object) -> None:
    workspace.kubectl("patch", "llmd/llm", "--type=merge", "-p", json.dumps({"spec": spec}))


def test_an_impossible_edit_keeps_the_old_plan_serving_and_putting_it_back_restarts_nothing(
    workspace: Workspace,
) -> None:
    workspace.serve()
    before = workspace.pod_uids()
    edit(workspace, parallelism={"tensor": 3})
    assert "3" in workspace.wait_condition("Planned", "False", "InvalidParallelism")
    assert workspace.condition("Ready")[:2] == ("False", "InvalidParallelism")
    assert workspace.condition("Available")[0] == "True"
    assert workspace.condition("Degraded")[:2] == ("True", "PreviousPlanServing")
    assert workspace.ask()["usage"]["completion_tokens"] == 4
    edit(workspace, parallelism={"tensor": None})
    workspace.wait_ready()
    assert workspace.pod_uids() == before


def test_an_edit_to_a_model_that_does_not_exist_leaves_the_old_one_serving(workspace: Workspace) -> None:
    workspace.serve()
    before = workspace.pod_uids()
    edit(workspace, model={"source": "hf://nobody/nothing"})
    workspace.wait_condition("Accepted", "False", "ModelNotFound")
    assert workspace.condition("Available")[0] == "True"
    assert workspace.condition("Degraded")[:2] == ("True", "PreviousPlanServing")
    assert workspace.ask()["usage"]["completion_tokens"] == 4
    assert workspace.pod_uids() == before


def test_kubectl_scale_moves_replicas_as_an_autoscaler_would(workspace: Workspace) -> None:
    workspace.serve()
    first = workspace.pod_uids()
    workspace.kubectl("scale", "llmd/llm", "--replicas=2")
    workspace.wait("two replicas", lambda: workspace.status().get("readyReplicas") == 2)
    workspace.wait_ready()
    assert first < workspace.pod_uids()
    scale = json.loads(workspace.kubectl("get", "llmd", "llm", "--subresource=scale", "-o", "json"))
    assert scale["spec"]["replicas"] == scale["status"]["replicas"] == 2
    matched = workspace.reader.items("pods", workspace.namespace, labelSelector=scale["status"]["selector"])
    assert {pod["metadata"]["uid"] for pod in matched} == workspace.pod_uids()

    # More than there are GPUs: no pod is made that could not run.
    workspace.kubectl("scale", "llmd/llm", "--replicas=6")
    message = workspace.wait_condition("AbleToScale", "False", "InsufficientGPUs")
    assert "6 replicas are asked for and 4 can be placed" in message
    workspace.wait("four replicas", lambda: workspace.need("deployments")["spec"]["replicas"] == 4)

    workspace.kubectl("scale", "llmd/llm", "--replicas=0")
    workspace.wait_condition("Ready", "False", "ScaledToZero")
    workspace.wait("no pod", lambda: not workspace.pods())


@pytest.mark.parametrize(
    ("tensor", "strategy", "reason"),
    [
        pytest.param(
            1,
            {"maxSurge": 1, "maxUnavailable": 0},
            "RollingOut",
            id="a spare GPU exists and the new replica starts first",
        ),
        pytest.param(
            4,
            {"maxSurge": 0, "maxUnavailable": 1},
            "ReplacingInPlace",
            id="no spare GPU exists and the old replica stops first",
        ),
    ],
)
def test_a_changed_setting_is_rolled_out(
    workspace: Workspace, tensor: int, strategy: Json, reason: str
) -> None:
    workspace.serve(parallelism={"tensor": tensor})
    before = workspace.pod_uids()
    edit(workspace, engine={"maxNumSeqs": 16})
    workspace.wait_condition("Progressing", "True", reason)
    assert workspace.condition("Ready")[0] == "False"
    assert workspace.need("deployments")["spec"]["strategy"]["rollingUpdate"] == strategy
    workspace.wait(
        "the new pod alone", lambda: workspace.pod_uids() and not workspace.pod_uids() & before, 120.0
    )
    workspace.wait_ready()
    assert workspace.status()["plan"]["maxNumSeqs"] == 16


def test_a_surge_without_a_spare_gpu_waits(workspace: Workspace) -> None:
    workspace.serve(parallelism={"tensor": 4})
    before, launch = workspace.pod_uids(), _launches(workspace)
    edit(workspace, engine={"maxNumSeqs": 16}, rollout={"strategy": "Surge"})
    workspace.wait_condition("Progressing", "True", "WaitingForSpareGPUs")
    assert workspace.condition("Available")[0] == "True"
    assert workspace.pod_uids() == before
    edit(workspace, rollout={"strategy": "InPlace"})
    workspace.wait("another pod", lambda: workspace.pod_uids() and not workspace.pod_uids() & before, 120.0)
    workspace.wait_ready()
    # The old launch configuration stays while the old ReplicaSet, to which one may roll back, refers to it.
    assert launch < _launches(workspace)


def _launches(workspace: Workspace) -> set[str]:
    return {name for name in workspace.rendered() if name.startswith("configmaps/")}


def test_kubectl_get_tells_it_in_one_line(workspace: Workspace) -> None:
    workspace.serve(parallelism={"tensor": 2})
    workspace.wait("its utilisation", lambda: "utilization" in workspace.status())
    header, row = workspace.kubectl("get", "llmd").splitlines()
    assert header.split() == COLUMNS
    expected = ["llm", f"hf://{workspace.repository()}", "True", "Serving", "1/1"]
    assert row.split()[:-1] == [*expected, "2x", "NVIDIA-L4", "tp2", "bf16", "0"]
    assert "1 of 1 replicas serve on 2x NVIDIA-L4 each." in workspace.kubectl("get", "llmd", "-o", "wide")
