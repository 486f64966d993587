"""What accuracy checks need of the shell: places for their Jobs, and the checkpoints that the spec allows."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.feed.grants import Grants
from stowage.feed.job_demand import waiting_job
from stowage.feed.models.resolutions import Resolutions
from stowage.kube.kinds import CHILD_KINDS, JOB, POD
from stowage.kube.store import Store
from stowage.world import Key, ModelQuery, ModelResolved, Outcome
from stowage_runtime.contract import CheckpointSummary
from tests.feed.shipped_files import RIGHTS
from tests.kube.fake_time import run
from tests.kube.objects import KEY, labels, pod

OTHER = Key("default", "other")


def job(gpus: int = 2, *, uid: str = "job-1", condition: str = "", version: str = "1") -> dict[str, Any]:
    made: dict[str, Any] = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "llama-acc-01234567",
            "namespace": "default",
            "uid": uid,
            "labels": labels(),
            "resourceVersion": version,
        },
        "spec": {"template": {"metadata": {"labels": labels()}, "spec": pod("p", gpus=gpus)["spec"]}},
    }
    if condition:
        made["status"] = {"conditions": [{"type": condition, "status": "True"}]}
    return made


def job_pod(*, node: str | None, phase: str = "Pending", version: str = "2") -> dict[str, Any]:
    made = pod("llama-acc-01234567-x", node=node, gpus=2)
    made["metadata"] |= {
        "labels": {**labels(), "stowage.dev/role": "accuracy"},
        "ownerReferences": [{"kind": "Job", "uid": "job-1", "controller": True}],
        "resourceVersion": version,
    }
    made["status"] = {"phase": phase}
    return made


@pytest.mark.parametrize(
    ("live", "pods", "pods_waiting", "uncreated"),
    [
        pytest.param(job(), [], 1, 1, id="its pod is not there yet"),
        pytest.param(job(), [job_pod(node=None)], 1, 0, id="its pod has no node"),
        pytest.param(job(), [job_pod(node="n1", phase="Running")], 0, 0, id="its pod has a node"),
        pytest.param(job(), [job_pod(node="n1", phase="Failed")], 0, 0, id="its pod has ended"),
        pytest.param(job(condition="Failed"), [], 0, 0, id="it is over"),
        pytest.param(job(uid=""), [job_pod(node="n1")], 1, 1, id="it is being made: no pod can be its own"),
    ],
)
def test_a_job_waits_until_its_pod_has_a_place(
    live: dict[str, Any], pods: list[dict[str, Any]], pods_waiting: int, uncreated: int
) -> None:
    found = waiting_job(live, pods)
    assert (len(found.pods), found.uncreated) == (pods_waiting, uncreated) if found else pods_waiting == 0
    if found:
        assert found.pods[0].requests.count("nvidia.com/gpu") == 2


def test_the_gpus_of_a_check_are_promised_to_nobody_else() -> None:
    store = Store()
    grants = Grants(store)
    grants.book(KEY, Outcome(apply=(job(),)))
    (assumed,) = grants.waiting(OTHER)
    assert assumed.pods[0].requests.count("nvidia.com/gpu") == 2
    assert grants.waiting(KEY) == []
    store.observe(JOB, job())
    grants.book(KEY, Outcome())
    assert len(grants.waiting(OTHER)) == 1
    store.observe(POD, job_pod(node="n1", phase="Running"))
    assert grants.waiting(OTHER) == []
    grants.drop(KEY)


class Reader:
    """Knows every checkpoint but one."""

    def __init__(self) -> None:
        self.asked: list[ModelQuery] = []

    async def __call__(self, question: ModelQuery) -> CheckpointSummary | Refusal:
        self.asked.append(question)
        await asyncio.sleep(0)
        if question.source == "hf://org/gated":
            return Refusal(Reason.MODEL_ACCESS_DENIED, "It is gated.")
        return CheckpointSummary(question.source, {"a": 1}, (), 0, 0, revision="c")


def test_allowed_checkpoints_are_read_with_the_model_and_a_missing_one_rules_out_itself_only() -> None:
    reader = Reader()
    query = ModelQuery(
        KEY, "1", "hf://org/tiny", inspection_pod="pod", alternatives=("hf://org/fp8", "hf://org/gated")
    )

    async def scenario() -> Any:
        subject = Resolutions(reader, lambda key, seconds: None)
        subject.want(query, datetime.now(UTC))
        await asyncio.sleep(1)
        answer = subject.get(KEY)
        await subject.close()
        return answer

    answer = run(scenario())
    assert isinstance(answer.state, ModelResolved)
    assert answer.state.summary.source == "hf://org/tiny"
    found = answer.state.alternatives
    assert isinstance(found["hf://org/fp8"], CheckpointSummary)
    assert isinstance(found["hf://org/gated"], Refusal)
    # What is read beside the model is public: the operator has no token and mounts no volume.
    assert [(each.source, each.inspection_pod) for each in reader.asked[1:]] == [
        ("hf://org/fp8", None),
        ("hf://org/gated", None),
    ]


def test_the_operator_may_do_with_jobs_what_it_does_and_watches_them() -> None:
    roles = [each for each in yaml.safe_load_all(RIGHTS.read_text()) if each["kind"] == "ClusterRole"]
    (rule,) = [rule for role in roles for rule in role["rules"] if "jobs" in rule["resources"]]
    assert rule["apiGroups"] == ["batch"]
    assert set(rule["verbs"]) == {"get", "list", "watch", "create", "patch", "delete"}
    assert JOB in CHILD_KINDS
