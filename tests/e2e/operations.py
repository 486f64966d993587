"""What the keepers of a cluster do to the operator: start, stop, kill and upgrade it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from e2e.stack import Stack
from e2e.stack.operator_process import OperatorProcess
from e2e.stack.reader import Reader
from e2e.stack.service import Service
from e2e.stack.stack import OPERATOR_NAMESPACE
from tests.e2e.waiting import wait_until

Operator = OperatorProcess[Service]


class Operations:
    """One stack and its operators; `operator` is the one that is meant to work."""

    def __init__(self, stack: Stack, lanes: Sequence[str]) -> None:
        self.stack = stack
        self._lanes = itertools.cycle(lanes)
        self._operator: Operator | None = None
        self._expected: list[str] = []

    def __enter__(self) -> Operations:
        try:
            self.stack.start_hub()
            self.stack.start_nodes()
            self.stack.install()
        except BaseException:
            self.stack.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.stop()

    @property
    def operator(self) -> Operator:
        """The operator that works."""
        assert self._operator is not None, "the operator was not started"
        return self._operator

    @property
    def output(self) -> str:
        """What the newest operator has logged."""
        return self._operator.output if self._operator else ""

    def bring_up(self) -> None:
        """Start what does not run."""
        if not self._runs("hub"):
            self.stack.start_hub()
        if not self._runs("nodes"):
            self.stack.start_nodes()
        if self._operator is None or not self._operator.is_running:
            self.start_operator()

    def check(self) -> None:
        """Fail if a part has ended that nobody has ended."""
        dead = [name for name, service in self.stack.services.items() if not service.is_running]
        stopped = [name for name in dead if self.stack.services[name].process is None]
        crashed = sorted(set(dead) - set(stopped))
        assert not crashed, f"{crashed} ended: {self.stack.services[crashed[0]].tail()}"

    def start_operator(self, **options: Any) -> Operator:
        """Start the operator, and wait until it works unless told otherwise."""
        self._operator = self.stack.start_operator(**options)
        return self._operator

    def start_standby(self, **options: Any) -> Operator:
        """Start a second operator beside the one that works."""
        return self.stack.start_operator(name="standby", wait=False, **options)

    def tolerate_lost_lease(self) -> None:
        """Start the operator again if it has ended because it could not renew its Lease."""
        if not self.operator.is_running:
            assert "Lease" in self.operator.output, self.operator.output
            self.start_operator()

    def stop_operator(self) -> None:
        """End the operator as its kubelet would."""
        self.operator.stop()

    def crash_operator(self) -> None:
        """Kill -9 the operator. Its Lease is removed, so that the next one need not wait until it runs out."""
        self.operator.kill()
        self.stack.cluster.kubectl(
            "delete", "lease", "stowage", "-n", OPERATOR_NAMESPACE, "--ignore-not-found"
        )

    def replace_operator(self, **options: Any) -> Operator:
        """End the operator and start another one."""
        self.stop_operator()
        return self.start_operator(**options)

    def next_lane(self) -> str:
        """A lane that no pod is left in."""
        lane = next(self._lanes)
        reader = Reader(self.stack.cluster)
        place = f"spec.nodeName=e2e-{lane}"
        wait_until(lambda: not reader.items("pods", fieldSelector=place), f"lane {lane} to be empty", 120.0)
        return lane

    def _runs(self, name: str) -> bool:
        service = self.stack.services.get(name)
        return service is not None and service.is_running
