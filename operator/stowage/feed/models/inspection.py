"""Reads a model through the short pod that the engine asked for.

The pod serves its summary on the agent's port until it was read, ends with a termination message, or cannot start. This
module waits for one of these; that the pod exists, and that it goes away, is the engine's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.diagnosis.finding import Severity
from stowage.diagnosis.pod import diagnose_pod
from stowage.feed.agent_http import AgentHttp, AgentUnavailable
from stowage.kube.facts import has_ended
from stowage.world import ModelQuery
from stowage_runtime.contract import CheckpointSummary, ContractError, Termination

POLL_SECONDS = 1.0

PodReader = Callable[[ModelQuery], Mapping[str, Any] | None]


async def inspect_by_pod(
    http: AgentHttp, query: ModelQuery, read_pod: PodReader
) -> CheckpointSummary | Refusal:
    """Wait until the pod of `query` answers, ends, or has a problem that keeps it from starting.

    `read_pod` gives the newest state of it, None while absent.
    """
    while True:
        pod = read_pod(query)
        if pod is not None:
            if has_ended(pod) or _container_has_ended(pod):
                return failure_of(pod, query)
            answer = await _try_read(http, pod) or _problem(pod)
            if answer is not None:
                return answer
        await asyncio.sleep(POLL_SECONDS)


def failure_of(pod: Mapping[str, Any], query: ModelQuery) -> Refusal:
    """Why an ended inspection pod did not answer, from its termination message or its status."""
    where = f"Pod {query.inspection_pod}, which should read {query.source},"
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated") or {}
        try:
            termination = Termination.from_json(ended.get("message") or "")
        except ContractError:
            continue
        return Refusal(_reason(termination.reason), termination.message)
    why = status.get("message") or status.get("reason") or "it left no termination message"
    return Refusal(Reason.INSPECTION_FAILED, f"{where} ended without a result: {why}.")


async def _try_read(http: AgentHttp, pod: Mapping[str, Any]) -> CheckpointSummary | Refusal | None:
    status = pod.get("status") or {}
    if status.get("phase") != "Running" or not status.get("podIP"):
        return None
    try:
        text = await http.get(status["podIP"], "/inspection")
    except AgentUnavailable:
        return None
    try:
        return CheckpointSummary.from_json(text)
    except ContractError as error:
        return Refusal(Reason.INSPECTION_FAILED, f"The inspection pod's answer cannot be read: {error}")


def _container_has_ended(pod: Mapping[str, Any]) -> bool:
    """Whether its only container is over; the pod's own phase says so a little later."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return any("terminated" in (status.get("state") or {}) for status in statuses)


def _problem(pod: Mapping[str, Any]) -> Refusal | None:
    """What keeps the pod from starting. It may vanish by itself, so the pod stays and is looked at again."""
    finding = diagnose_pod(pod, None)
    return Refusal(finding.reason, finding.message) if finding.severity is Severity.PROBLEM else None


def _reason(name: str) -> Reason:
    """The documented reason of that name; the agent's general fetch failure counts as a failed inspection."""
    try:
        reason = Reason(name)
    except ValueError:
        return Reason.INSPECTION_FAILED
    return Reason.INSPECTION_FAILED if reason is Reason.MODEL_FETCH_FAILED else reason
