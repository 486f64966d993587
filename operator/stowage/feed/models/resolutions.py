"""Answers the engine's questions about models: one task per question, a bounded number at the Hub at a time.

An answer is kept until the question changes, so a moving tag is resolved once and every replica of that spec serves
the same commit. A failure keeps standing while it is tried again, or status would flicker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.feed.retries import retry_seconds
from stowage.kube.errors import ApiError
from stowage.world import Key, ModelFailed, ModelPending, ModelQuery, ModelResolved, ModelState, Resolution
from stowage_runtime.contract import CheckpointSummary

logger = logging.getLogger(__name__)

Reader = Callable[[ModelQuery], Awaitable[CheckpointSummary | Refusal]]


@dataclass(slots=True)
class _Running:
    query: ModelQuery
    task: asyncio.Task[None]


class Resolutions:
    """The newest answer per key. `wake` is called with a key when its answer changed."""

    def __init__(self, read: Reader, wake: Callable[[Key, float], None], parallel: int = 4) -> None:
        self._read = read
        self._wake = wake
        self._slots = asyncio.Semaphore(parallel)
        self._answers: dict[Key, Resolution] = {}
        self._failures: dict[Key, int] = {}
        self._running: dict[Key, _Running] = {}

    def get(self, key: Key) -> Resolution | None:
        """The newest answer."""
        return self._answers.get(key)

    def has_model(self, key: Key) -> bool:
        """Whether the model of the key is known."""
        answer = self._answers.get(key)
        return answer is not None and isinstance(answer.state, ModelResolved)

    def want(self, query: ModelQuery, now: datetime) -> bool:
        """Make sure that somebody works on the question; gives whether a new task was started."""
        running = self._running.get(query.key)
        if running is not None:
            if running.query == query:
                return False
            self._stop(query.key)
        answer = self._answers.get(query.key)
        if answer is None or answer.query != query:
            self._failures.pop(query.key, None)
            self._answers[query.key] = Resolution(query, ModelPending())
        elif not _is_due(answer.state, now):
            return False
        task = asyncio.create_task(self._resolve(query), name=f"resolve {query.key}")
        self._running[query.key] = _Running(query, task)
        return True

    def forget(self, key: Key) -> None:
        """The LLMDeployment is gone."""
        self._stop(key)
        self._answers.pop(key, None)
        self._failures.pop(key, None)

    async def close(self) -> None:
        """Stop all tasks and wait for them."""
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stop(self, key: Key) -> None:
        running = self._running.pop(key, None)
        if running is not None:
            running.task.cancel()

    async def _resolve(self, query: ModelQuery) -> None:
        result = await self._read_bounded(query)
        state: ModelState
        delay = 0.0
        if isinstance(result, Refusal):
            failures = self._failures.get(query.key, 0) + 1
            self._failures[query.key] = failures
            seconds = retry_seconds(result.reason, failures)
            retry_at = datetime.now(UTC) + timedelta(seconds=seconds) if seconds is not None else None
            state = ModelFailed(result, retry_at)
            delay = seconds or 0.0
        else:
            self._failures.pop(query.key, None)
            state = ModelResolved(result, await self._read_alternatives(query))
        self._running.pop(query.key, None)
        self._answers[query.key] = Resolution(query, state)
        self._wake(query.key, 0.0)
        if delay:
            self._wake(query.key, delay)

    async def _read_alternatives(self, query: ModelQuery) -> dict[str, CheckpointSummary | Refusal]:
        """Read what may be served instead, one after the other; a failure rules out that one only."""
        return {
            source: await self._read_bounded(ModelQuery(query.key, query.inputs, source))
            for source in query.alternatives
        }

    async def _read_bounded(self, query: ModelQuery) -> CheckpointSummary | Refusal:
        try:
            if query.inspection_pod is not None:
                return await self._read(query)
            async with self._slots:
                return await self._read(query)
        except ApiError as error:
            return Refusal(Reason.INSPECTION_FAILED, f"{query.source} could not be looked up: {error}")
        except Exception:
            # A bug in a reader must not leave the question without an answer for ever.
            logger.exception("Reading %s for %s failed", query.source, query.key)
            return Refusal(
                Reason.INSPECTION_FAILED, f"Reading {query.source} failed; the operator's log says why."
            )


def _is_due(state: ModelState, now: datetime) -> bool:
    if isinstance(state, ModelFailed):
        return state.retry_at is not None and now >= state.retry_at
    return isinstance(state, ModelPending)
