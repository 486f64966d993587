"""One pod's state to one documented reason, from what the cluster really writes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stowage.api.conditions import Reason
from stowage.diagnosis.finding import Finding, Severity, worst
from stowage.diagnosis.pod import diagnose_pod
from stowage_runtime.contract import TERMINATION_REASONS, Failure, Progress, RuntimeReport


def pod(node: str | None = "gpu-1", **status: Any) -> dict[str, Any]:
    spec = {"nodeName": node} if node else {}
    return {"metadata": {"name": "llama-1"}, "spec": spec, "status": status}


def engine(
    state: dict[str, Any], restarts: int = 0, last: dict[str, Any] | None = None, ready: bool = False
) -> Any:
    return [
        {
            "name": "engine",
            "state": state,
            "lastState": {"terminated": last} if last else {},
            "restartCount": restarts,
            "ready": ready,
        }
    ]


def unschedulable(message: str) -> dict[str, Any]:
    return pod(
        None,
        conditions=[
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        ],
    )


def termination(reason: str, message: str) -> str:
    return json.dumps({"reason": reason, "message": message})


NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
PULL = 'Back-off pulling image "example/vllm:9"'
WAITING = {"waiting": {"reason": "ImagePullBackOff", "message": PULL}}
SUB_PATH = {
    "waiting": {
        "reason": "CreateContainerConfigError",
        "message": 'failed to prepare subPath for volumeMount "model" of container "inspect"',
    }
}
SECRET = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}}
CRASH = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
CUDA = termination("CUDAOutOfMemory", "torch.OutOfMemoryError: CUDA out of memory.")


@pytest.mark.parametrize(
    ("given", "reason", "words"),
    [
        pytest.param(
            unschedulable(NO_GPU), Reason.UNSCHEDULABLE, NO_GPU, id="the scheduler's words are lifted"
        ),
        pytest.param(
            pod(containerStatuses=engine(WAITING)),
            Reason.IMAGE_PULL_FAILED,
            PULL,
            id="an image that cannot be pulled",
        ),
        pytest.param(
            pod(initContainerStatuses=engine(WAITING)),
            Reason.IMAGE_PULL_FAILED,
            PULL,
            id="an agent image that cannot be pulled",
        ),
        pytest.param(
            pod(containerStatuses=engine(SECRET)),
            Reason.SECRET_MISSING,
            "hub",
            id="a Secret that does not exist",
        ),
        pytest.param(
            pod(containerStatuses=engine(SUB_PATH)),
            Reason.MODEL_NOT_FOUND,
            "subPath",
            id="a folder that the volume does not have",
        ),
        pytest.param(
            pod(containerStatuses=engine({"terminated": {"exitCode": 0}}, 2)),
            Reason.CRASH_LOOPING,
            "exit code 0",
            id="a server that ends again and again without an error",
        ),
        pytest.param(
            pod(containerStatuses=engine(CRASH, 3, {"exitCode": 1, "message": CUDA})),
            Reason.CUDA_OUT_OF_MEMORY,
            "restarted 3×",
            id="a CUDA out-of-memory behind a crash loop",
        ),
        pytest.param(
            pod(containerStatuses=engine({"running": {}}, 2, {"exitCode": 1, "message": CUDA})),
            Reason.CUDA_OUT_OF_MEMORY,
            "CUDA out of memory",
            id="the cause stays visible while the container runs again",
        ),
        pytest.param(
            pod(containerStatuses=engine({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})),
            Reason.HOST_MEMORY_EXCEEDED,
            "OOMKilled",
            id="a container that the kernel killed",
        ),
        pytest.param(
            pod(containerStatuses=engine(CRASH, 1, {"exitCode": 2, "message": "no such option"})),
            Reason.CRASH_LOOPING,
            "exit code 2",
            id="an end without a classified message",
        ),
        pytest.param(
            pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
            Reason.EVICTED,
            "low on resource",
            id="an evicted pod",
        ),
    ],
)
def test_a_problem_has_its_reason_and_the_clusters_own_words(
    given: dict[str, Any], reason: Reason, words: str
) -> None:
    finding = diagnose_pod(given, None)
    assert (finding.severity, finding.reason) == (Severity.PROBLEM, reason)
    assert words in finding.message
    assert "llama-1" in finding.message


@pytest.mark.parametrize("reason", sorted(TERMINATION_REASONS))
def test_every_reason_of_the_agent_is_a_reason_of_the_api(reason: str) -> None:
    ended = {"exitCode": 1, "message": termination(reason, "A sentence.")}
    finding = diagnose_pod(pod(containerStatuses=engine({"terminated": ended})), None)
    assert finding.reason == Reason(reason)


def report(phase: str, **fields: Any) -> RuntimeReport:
    return RuntimeReport(
        phase=phase,
        phase_since="2026-01-01T00:00:00Z",
        started_at="2026-01-01T00:00:00Z",
        launch_hash="0" * 64,
        **fields,
    )


RUNNING = pod(containerStatuses=engine({"running": {}}))


@pytest.mark.parametrize(
    ("given", "said", "reason", "words"),
    [
        pytest.param(pod(None), None, Reason.SCHEDULING, "scheduler", id="a new pod waits for the scheduler"),
        pytest.param(
            pod(containerStatuses=engine({"waiting": {"reason": "ContainerCreating"}})),
            None,
            Reason.PULLING_IMAGE,
            "images",
            id="a bound pod waits for its images",
        ),
        pytest.param(
            RUNNING, report("Preflight"), Reason.STARTING, "checks", id="the agent checks the machine"
        ),
        pytest.param(
            RUNNING,
            report("Fetching", progress=Progress(fetched_bytes=3 << 30, total_bytes=10 << 30)),
            Reason.FETCHING_MODEL,
            "30 % of 10.0 GiB",
            id="a download in steps of ten percent",
        ),
        pytest.param(RUNNING, report("Loading"), Reason.LOADING_MODEL, "weights", id="weights are loaded"),
        pytest.param(
            RUNNING, report("Warming"), Reason.WARMING_UP, "completion", id="the first completion is awaited"
        ),
    ],
)
def test_progress_is_told_in_its_phase(
    given: dict[str, Any], said: RuntimeReport | None, reason: Reason, words: str
) -> None:
    finding = diagnose_pod(given, said)
    assert (finding.severity, finding.reason) == (Severity.PROGRESS, reason)
    assert words in finding.message


def test_an_init_container_that_ran_again_and_succeeded_is_no_problem() -> None:
    """As after a restart of the node: it is the engine that people should hear about."""
    done = engine({"terminated": {"exitCode": 0}}, 1, {"exitCode": 0})
    given = pod(initContainerStatuses=done, containerStatuses=engine({"running": {}}, 1, {"exitCode": 0}))
    given["status"]["containerStatuses"][0]["restartCount"] = 0
    finding = diagnose_pod(given, report("Loading"))
    assert (finding.severity, finding.reason) == (Severity.PROGRESS, Reason.LOADING_MODEL)


def test_a_ready_pod_is_ready_whatever_happened_before() -> None:
    given = pod(
        conditions=[{"type": "Ready", "status": "True"}],
        containerStatuses=engine({"running": {}}, 4, {"exitCode": 1, "message": CUDA}, ready=True),
    )
    assert diagnose_pod(given, None).severity is Severity.READY


def test_an_agent_that_gave_up_says_why_before_the_container_ends() -> None:
    failure = Failure(reason="GPUCountMismatch", message="2 GPUs were planned and 1 is there.")
    finding = diagnose_pod(RUNNING, report("Failed", failure=failure))
    assert (finding.severity, finding.reason) == (Severity.PROBLEM, Reason.GPU_COUNT_MISMATCH)


def test_the_worst_finding_wins_and_a_tie_goes_to_the_most_retried() -> None:
    findings = (
        Finding(Severity.READY, Reason.SERVING, "", "a"),
        Finding(Severity.PROBLEM, Reason.CRASH_LOOPING, "", "b", retries=1),
        Finding(Severity.PROBLEM, Reason.CUDA_OUT_OF_MEMORY, "", "c", retries=5),
    )
    assert worst(findings) is findings[2]
    assert worst(()) is None
