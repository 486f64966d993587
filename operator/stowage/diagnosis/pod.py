"""The root cause of one pod's state.

The checks form a chain from the outside to the inside: scheduling, the pod's own end, its containers, then the
agent's report. The first that has something to say wins, since a later one can only describe a consequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from stowage.api.conditions import Reason
from stowage.diagnosis.container_reasons import POD_PROBLEMS, TERMINATED_PROBLEMS, WAITING_PROBLEMS
from stowage.diagnosis.finding import Finding, Severity
from stowage_runtime.contract import ContractError, RuntimeReport, Termination

_GIB = 1 << 30

Pod = Mapping[str, Any]


def diagnose_pod(pod: Pod, report: RuntimeReport | None, *, node_is_lost: bool = False) -> Finding:
    """Say what one pod is doing, or why it cannot; `node_is_lost` when its node is gone or does not report."""
    if node_is_lost and not is_ready(pod):
        node = pod["spec"]["nodeName"]
        return _finding(
            pod, Severity.PROBLEM, Reason.NODE_LOST, f"was on node {node}, which is gone or not ready."
        )
    for check in _CHECKS:
        finding = check(pod, report)
        if finding is not None:
            return finding
    return _finding(pod, Severity.PROGRESS, Reason.STARTING, "is starting.")


def is_ready(pod: Pod) -> bool:
    """Whether the pod's Ready condition is True and it is not on its way out."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    return any(
        item["type"] == "Ready" and item["status"] == "True" for item in _status(pod).get("conditions") or ()
    )


def ready_since(pod: Pod) -> datetime | None:
    """When the pod became ready; None where it is not, or where nobody wrote it down."""
    for item in _status(pod).get("conditions") or ():
        if item["type"] == "Ready" and item["status"] == "True" and item.get("lastTransitionTime"):
            return datetime.fromisoformat(item["lastTransitionTime"].replace("Z", "+00:00"))
    return None


def ended_at(pod: Pod) -> datetime:
    """When a pod that has ended was last heard of."""
    status = _status(pod)
    times = [item.get("lastTransitionTime") for item in status.get("conditions") or ()]
    known = [
        text for text in (*times, status.get("startTime"), pod["metadata"].get("creationTimestamp")) if text
    ]
    return datetime.fromisoformat(max(known).replace("Z", "+00:00"))


def has_run(pod: Pod) -> bool:
    """Whether any container of the pod was ever started; its node rejected it otherwise."""
    return any(
        state.get("running") or state.get("terminated")
        for status in _container_statuses(pod)
        for state in (status.get("state") or {}, status.get("lastState") or {})
    )


def is_bound(pod: Pod) -> bool:
    """Whether the pod holds, or still holds, resources of a node."""
    return bool(pod.get("spec", {}).get("nodeName")) and _status(pod).get("phase") not in (
        "Succeeded",
        "Failed",
    )


def _status(pod: Pod) -> Mapping[str, Any]:
    return pod.get("status") or {}


def _finding(pod: Pod, severity: Severity, reason: Reason, text: str, retries: int = 0) -> Finding:
    name = pod["metadata"]["name"]
    return Finding(severity, reason, f"Pod {name} {text}", name, retries)


def _check_leaving(pod: Pod, _: RuntimeReport | None) -> Finding | None:
    if not pod["metadata"].get("deletionTimestamp"):
        return None
    return _finding(pod, Severity.PROGRESS, Reason.DRAINING, "finishes its requests and stops.")


def _check_ready(pod: Pod, _: RuntimeReport | None) -> Finding | None:
    return _finding(pod, Severity.READY, Reason.SERVING, "is serving.") if is_ready(pod) else None


def _check_scheduling(pod: Pod, _: RuntimeReport | None) -> Finding | None:
    if pod.get("spec", {}).get("nodeName"):
        return None
    for item in _status(pod).get("conditions") or ():
        if item["type"] == "PodScheduled" and item["status"] == "False":
            words = (item.get("message") or "").strip()
            if item.get("reason") == "SchedulingGated":
                return _finding(pod, Severity.PROGRESS, Reason.SCHEDULING, f"is gated: {words}")
            claim = "persistentvolumeclaim" in words.lower()
            reason = Reason.VOLUME_CLAIM_MISSING if claim else Reason.UNSCHEDULABLE
            return _finding(pod, Severity.PROBLEM, reason, f"cannot be scheduled: {words}")
    return _finding(pod, Severity.PROGRESS, Reason.SCHEDULING, "waits for the scheduler.")


def _check_pod_end(pod: Pod, _: RuntimeReport | None) -> Finding | None:
    status = _status(pod)
    if status.get("phase") != "Failed":
        return None
    word = status.get("reason") or ""
    reason = POD_PROBLEMS.get(word)
    if reason is None and not word:
        return None
    text = f"failed ({word}): {(status.get('message') or 'no message').strip()}"
    return _finding(pod, Severity.PROBLEM, reason or Reason.CRASH_LOOPING, text)


def _check_containers(pod: Pod, _: RuntimeReport | None) -> Finding | None:
    for status in _container_statuses(pod):
        finding = None if _is_done(pod, status) else _container_finding(pod, status)
        if finding is not None:
            return finding
    return None


def _is_done(pod: Pod, status: Mapping[str, Any]) -> bool:
    """Whether this is an init container that has succeeded, at whichever try."""
    ended = (status.get("state") or {}).get("terminated")
    init = _status(pod).get("initContainerStatuses") or ()
    return status in init and ended is not None and ended.get("exitCode") == 0


def _container_statuses(pod: Pod) -> Iterable[Mapping[str, Any]]:
    status = _status(pod)
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _container_finding(pod: Pod, status: Mapping[str, Any]) -> Finding | None:
    state = status.get("state") or {}
    waiting = state.get("waiting") or {}
    word = waiting.get("reason") or ""
    restarts = int(status.get("restartCount") or 0)
    if word in WAITING_PROBLEMS:
        words = (waiting.get("message") or "no message").strip()
        reason = _config_error(words) if word == "CreateContainerConfigError" else WAITING_PROBLEMS[word]
        text = f"container {status['name']}: {word}: {words}"
        return _finding(pod, Severity.PROBLEM, reason, text, restarts)
    ended = state.get("terminated") or {}
    if not ended and word == "CrashLoopBackOff":
        ended = (status.get("lastState") or {}).get("terminated") or {"exitCode": -1}
    if not ended and "running" in state and restarts and not status.get("ready"):
        # It runs again; the cause of the last end stays visible until the replica serves.
        ended = (status.get("lastState") or {}).get("terminated") or {}
    if not ended or (ended.get("exitCode") == 0 and not restarts):
        return None
    return _end_finding(pod, status["name"], ended, restarts)


def _config_error(words: str) -> Reason:
    """What a container refers to and is not there; the only sub-path in our pods is that of a pvc:// model."""
    lowered = words.lower()
    if "configmap" in lowered:
        return Reason.CONFIG_MAP_MISSING
    if "subpath" in lowered or "mountpath" in lowered:
        return Reason.MODEL_NOT_FOUND
    return WAITING_PROBLEMS["CreateContainerConfigError"]


def _end_finding(pod: Pod, container: str, ended: Mapping[str, Any], restarts: int) -> Finding:
    again = f" (restarted {restarts}×)" if restarts else ""
    known = TERMINATED_PROBLEMS.get(ended.get("reason") or "")
    if known is not None:
        text = f"container {container} was ended: {ended['reason']}{again}."
        return _finding(pod, Severity.PROBLEM, known, text, restarts)
    words = (ended.get("message") or "").strip()
    termination = _termination(words)
    if termination is not None:
        text = f"ended{again}: {termination.message}"
        return _finding(pod, Severity.PROBLEM, Reason(termination.reason), text, restarts)
    code = ended.get("exitCode")
    text = f"container {container} ended with exit code {code}{again}" + (f": {words}" if words else ".")
    return _finding(pod, Severity.PROBLEM, Reason.CRASH_LOOPING, text, restarts)


def _termination(words: str) -> Termination | None:
    if not words.startswith("{"):
        return None
    try:
        return Termination.from_json(words)
    except ContractError:
        return None


def _check_images(pod: Pod, _: RuntimeReport | None) -> Finding | None:
    for status in _container_statuses(pod):
        if {"running", "terminated"} & (status.get("state") or {}).keys():
            continue
        word = ((status.get("state") or {}).get("waiting") or {}).get("reason")
        if word in ("ContainerCreating", "PodInitializing"):
            return _finding(pod, Severity.PROGRESS, Reason.PULLING_IMAGE, "waits for its images and volumes.")
    return None


def _check_report(pod: Pod, report: RuntimeReport | None) -> Finding | None:
    if report is None:
        return None
    reason, text = _PHASES[report.phase]
    if report.phase == "Fetching":
        text = _fetch_text(report)
    if report.failure is not None:
        return _finding(
            pod, Severity.PROBLEM, Reason(report.failure.reason), f"failed: {report.failure.message}"
        )
    return _finding(pod, Severity.PROGRESS, reason, text)


_PHASES: Mapping[str, tuple[Reason, str]] = {
    "Preflight": (Reason.STARTING, "checks the machine."),
    "Fetching": (Reason.FETCHING_MODEL, "downloads the model."),
    "Loading": (Reason.LOADING_MODEL, "loads the weights."),
    "Warming": (Reason.WARMING_UP, "warms up and answers its first completion."),
    "Serving": (Reason.WARMING_UP, "serves and becomes ready."),
    "Draining": (Reason.DRAINING, "finishes its requests and stops."),
    "Failed": (Reason.ENGINE_EXITED, "failed."),
}


def _fetch_text(report: RuntimeReport) -> str:
    """Progress in tenths, so that a download does not cause a status write for every megabyte."""
    progress = report.progress
    if not progress.total_bytes:
        return f"downloads the model. {progress.note or ''}".strip()
    tenths = 10 * progress.fetched_bytes // progress.total_bytes
    total = f"{progress.total_bytes / _GIB:.1f} GiB"
    return f"downloads the model: {tenths * 10} % of {total}. {progress.note or ''}".strip()


_CHECKS: tuple[Callable[[Pod, RuntimeReport | None], Finding | None], ...] = (
    _check_leaving,
    _check_ready,
    _check_scheduling,
    _check_pod_end,
    _check_containers,
    _check_images,
    _check_report,
)
