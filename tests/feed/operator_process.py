"""The real operator process, with the shipped rights, watched by a test."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

_PORTS = re.compile(r"Probes on port (\d+), metrics on port (\d+)")


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Poll; fails the test when the condition does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.1)


class OperatorProcess:
    """`python -m stowage.app` on free ports; use it as a context manager."""

    def __init__(self, kubeconfig: Path, log: Path, lease: str, *flags: str) -> None:
        self.log = log
        self.lease = lease
        flags = (*flags, f"--lease-name={lease}", "--lease-namespace=stowage-system")
        self._log_file = log.open("wb")
        command = [sys.executable, "-m", "stowage.app", f"--kubeconfig={kubeconfig}", "--host=127.0.0.1"]
        command += [
            "--health-port=0",
            "--metrics-port=0",
            "--crd-interval=0.5",
            "--fan-out-interval=0.5",
            *flags,
        ]
        environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        self.process = subprocess.Popen(
            command, stdout=self._log_file, stderr=subprocess.STDOUT, env=environment
        )
        self._ports: tuple[int, int] | None = None

    def __enter__(self) -> OperatorProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._log_file.close()

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def probe(self, path: str) -> tuple[int, str]:
        """Status and text of a probe; 0 while nobody listens."""
        return self._fetch(0, path)

    def metric(self, line_start: str) -> float:
        """The sum of all samples whose line starts so."""
        lines = self._fetch(1, "/metrics")[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(line_start))

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.output
        return self.probe("/readyz")[0] == 200

    def is_at_work(self) -> bool:
        assert self.process.poll() is None, self.output
        return "At work" in self.output

    def wait_at_work(self) -> None:
        wait_until(self.is_at_work, f"operator at work:\n{self.output}")

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20.0)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self.process.poll() is None:
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10.0)

    def _fetch(self, which: int, path: str) -> tuple[int, str]:
        if self._ports is None:
            found = _PORTS.search(self.output)
            if found is None:
                return 0, ""
            self._ports = (int(found[1]), int(found[2]))
        url = f"http://127.0.0.1:{self._ports[which]}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5.0) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""
