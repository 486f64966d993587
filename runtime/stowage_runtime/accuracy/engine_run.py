"""One engine of a check, started and ended by the agent's own launch code.

The agent's checks of the machine, its download and its self-test all apply, so a check fails for the same documented
reasons as a replica would. It must never leave an engine behind: the next one needs its memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stowage_runtime.accuracy.scorer import Scorer
from stowage_runtime.agent import Agent, Surroundings
from stowage_runtime.contract import LaunchSpec, Termination
from stowage_runtime.engine_client import EngineRequestError
from stowage_runtime.failures import AgentFailure, EngineEnded
from stowage_runtime.state import AgentState

# A driver frees an ended process's memory a little later, and vLLM refuses to start beside it.
_SETTLE_SECONDS = 3.0
# An engine that dies drops its connections first.
_LAST_BREATH_SECONDS = 2.0


class EngineRuns:
    """Opens the engines of one check, one at a time. ``kinds`` collects what has answered."""

    def __init__(self, around: Surroundings, parallel_requests: int) -> None:
        self._around = around
        self._parallel_requests = parallel_requests
        self.kinds: set[str] = set()

    @contextmanager
    def open(self, spec: LaunchSpec, word: str) -> Iterator[Scorer]:
        """Start an engine and give what asks it; raises AgentFailure, which names the engine by ``word``."""
        processes = self._around.processes
        self._around.log(f"starting the {word}: {spec.model.repo_id or spec.model.path}")
        agent = Agent(spec, AgentState(spec.content_hash()), self._around)
        try:
            agent.start()
            self.kinds.add(agent.engine_kind)
            yield Scorer(agent.client, spec.served_model_name, self._parallel_requests, processes.call)
        except EngineEnded as ended:
            raise _of(word, agent.explain(ended)) from None
        except EngineRequestError as error:
            raise _of(word, self._explain(agent, error)) from None
        except AgentFailure as failure:
            raise _of(word, failure.termination) from None
        finally:
            # Also after a stop signal: the pod's grace period is longer than this end.
            processes.ignore_stop()
            agent.end()
            processes.heed_stop()
        if spec.gpus is not None:
            processes.pause(_SETTLE_SECONDS)

    def _explain(self, agent: Agent, error: EngineRequestError) -> Termination:
        """A request that failed may be the first sign of an engine that has ended."""
        try:
            self._around.processes.pause(_LAST_BREATH_SECONDS)
        except EngineEnded as ended:
            return agent.explain(ended)
        return Termination(reason="SelfTestFailed", message=f"{error}.")


def _of(word: str, termination: Termination) -> AgentFailure:
    if termination.reason == "InvalidPrompts":
        return AgentFailure(termination.reason, termination.message, termination.details)
    message = f"The {word} of the accuracy check: {termination.message}"
    return AgentFailure(termination.reason, message, termination.details)
