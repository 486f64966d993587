"""What a Job of ours asks of the cluster while its pod has no place yet.

Like the pods of a Deployment that are asked for and not bound: without it somebody else could be promised the GPUs that
an accuracy check was made for. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stowage.feed.demand import Waiting
from stowage.hardware.inventory import pod_usage
from stowage.kube.facts import has_ended, job_has_ended
from stowage.kube.ownership import names_owner


def waiting_job(job: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> Waiting | None:
    """What a rendered or live Job waits for, given the pods of its LLMDeployment; None once its pod has a place."""
    metadata = job["metadata"]
    if metadata.get("deletionTimestamp") or job_has_ended(job):
        return None
    uid = metadata.get("uid")
    own = [pod for pod in pods if uid and names_owner(pod, uid)]
    if any(has_ended(pod) or pod["spec"].get("nodeName") for pod in own):
        return None
    template = job["spec"]["template"]
    named = {**(template.get("metadata") or {}), "name": metadata["name"], "namespace": metadata["namespace"]}
    return Waiting((pod_usage({**template, "metadata": named}),), uncreated=0 if own else 1)
