"""Which kinds the server has: our own must be there, others may come and go.

A missing CRD is said once, in one sentence, and looked for again every few seconds; the event feed starts only after
it was found, since it never notices by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from stowage.kube.client import KubeClient
from stowage.kube.errors import ApiError
from stowage.kube.kinds import LLM_DEPLOYMENT, OPTIONAL_KINDS, Kind

logger = logging.getLogger(__name__)


class KindRemoved(Exception):
    """The CRD was deleted while the operator was at work."""


async def wait_for_own_kind(client: KubeClient, interval_seconds: float) -> None:
    """Return once the server has LLMDeployments."""
    told = False
    while not await _serves(client, LLM_DEPLOYMENT):
        if not told:
            logger.error(
                "The kind LLMDeployment (stowage.dev/v1alpha1) is not installed: apply the CustomResourceDefinition "
                "from crds/; the operator looks again every %g s.",
                interval_seconds,
            )
            told = True
        await asyncio.sleep(interval_seconds)
    if told:
        logger.info("The kind LLMDeployment is installed now.")


async def guard_own_kind(client: KubeClient, interval_seconds: float) -> None:
    """Raise KindRemoved when the server has no LLMDeployments any more."""
    while True:
        await asyncio.sleep(interval_seconds)
        try:
            there = await client.serves(LLM_DEPLOYMENT)
        except ApiError:
            continue
        if not there:
            raise KindRemoved("The CustomResourceDefinition of LLMDeployment was deleted.")


async def installed_kinds(client: KubeClient, kinds: Iterable[Kind] = OPTIONAL_KINDS) -> frozenset[Kind]:
    """Those of the optional kinds that the server has now; raises ApiError."""
    return frozenset([kind for kind in kinds if await client.serves(kind)])


async def _serves(client: KubeClient, kind: Kind) -> bool:
    try:
        return await client.serves(kind)
    except ApiError as error:
        logger.warning("The API server could not be asked for its kinds: %s", error)
        return False
