"""The network that a cluster lives in: a network namespace where the machine allows one, else loopback.

Mode `net` (root) and mode `user` (anybody, by a user namespace) give a private loopback device on which
every pod and Service address is local (AnyIP). Mode `loopback` is what remains where namespaces are
refused; `reason` then says why. Whatever has to reach pods starts by `popen` or `wrap`, or takes a socket
of the inside by `connect` and `listen`, which work from any thread of any process (pytest too) without
entering. It must never change the network of the calling process.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from e2e.controlplane.gateway import short_path, tcp_listener
from e2e.controlplane.processes import Process, launcher, spawn, stop_all

Mode = Literal["net", "user", "loopback"]
MODE_VARIABLE = "STOWAGE_NETWORK"
POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1:443"
_REPOSITORY = Path(__file__).resolve().parents[2]
_READY_SECONDS = 20.0


class NamespaceError(Exception):
    """The namespace that was asked for is refused by this machine, or has ended."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A cluster's network; `directory` holds the gateway's socket and log, and loopback has no gateway."""

    mode: Mode
    directory: Path
    gateway: Process | None = None
    reason: str = ""

    @classmethod
    def create(
        cls, directory: Path, api_port: int, *, detached: bool = False, mode: Mode | None = None
    ) -> Namespace:
        """Make the best network that this machine allows, with `api_port` relayed to the outside.

        `mode` (or the variable STOWAGE_NETWORK) insists on one; a refusal of it raises `NamespaceError`.
        Unless `detached`, the namespace's gateway is killed with the thread that called this.
        """
        wanted = mode or _wanted_mode(os.environ.get(MODE_VARIABLE, ""))
        if wanted == "loopback":
            return cls("loopback", directory, reason="asked for")
        candidates: list[Mode] = [wanted] if wanted else ["net", "user"] if os.geteuid() == 0 else ["user"]
        refusals = []
        for candidate in candidates:
            try:
                gateway = _start_gateway(directory, candidate, api_port, detached=detached)
            except NamespaceError as error:
                refusals.append(f"{candidate}: {error}")
            else:
                return cls(candidate, directory, gateway)
        if wanted is not None:
            raise NamespaceError(f"this machine refuses the network mode {wanted} ({'; '.join(refusals)})")
        return cls("loopback", directory, reason="; ".join(refusals))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Namespace:
        """Read what `to_record` wrote."""
        gateway = record.get("gateway")
        process = Process.from_record(gateway) if gateway else None
        return cls(record["mode"], Path(record["directory"]), process, record.get("reason", ""))

    def to_record(self) -> dict[str, Any]:
        """Return the namespace as JSON values, for another process to use."""
        gateway = self.gateway.to_record() if self.gateway else None
        return {
            "mode": self.mode,
            "directory": str(self.directory),
            "gateway": gateway,
            "reason": self.reason,
        }

    @property
    def isolated(self) -> bool:
        """Whether pods have addresses of their own here (10.244.0.0/16) and ClusterIPs can be bound."""
        return self.mode != "loopback"

    def describe(self) -> str:
        """Say in one sentence what network this is."""
        if self.mode == "net":
            return "network namespace of its own (as root)"
        if self.mode == "user":
            return "network namespace of its own, in a user namespace (no root needed)"
        return f"plain loopback of this machine, without addresses per pod ({self.reason})"

    def wrap(self, command: Sequence[str], *, session: bool = False, parent: int | None = None) -> list[str]:
        """Return the argument list that runs `command` inside; its pid becomes the command's own.

        `session` makes it lead a session; `parent` (the caller's pid) has it killed when that thread ends.
        """
        if not self.isolated and not session and parent is None:
            return list(command)
        return [*launcher(holder=self.gateway, session=session, parent=parent), *command]

    def popen(
        self, command: Sequence[str], *, detached: bool = False, **options: Any
    ) -> subprocess.Popen[Any]:
        """Start `command` inside, as the leader of a session; `options` are those of `subprocess.Popen`.

        Unless `detached`, it is killed when the calling thread ends, so call this from one that stays.
        """
        words = self.wrap(command, session=True, parent=None if detached else os.getpid())
        return subprocess.Popen(words, **options)

    def connect(self, host: str, port: int, timeout_seconds: float = 10.0) -> socket.socket:
        """Return a socket connected to an address of the inside; raises `OSError` where nobody answers."""
        if not self.isolated:
            return socket.create_connection((host, port), timeout=timeout_seconds)
        connection = self._ask("connect", host, port, timeout_seconds)
        connection.settimeout(timeout_seconds)
        return connection

    def listen(self, host: str, port: int) -> socket.socket:
        """Return a socket that listens on an address of the inside (port 0: a free one)."""
        return self._ask("listen", host, port, 10.0) if self.isolated else tcp_listener(host, port)

    def processes(self) -> list[Process]:
        """Name every process whose network is this one, save the caller and its ancestors."""
        if self.gateway is None or not self.gateway.is_running():
            return []
        inode = os.stat(f"/proc/{self.gateway.pid}/ns/net").st_ino
        spared = _ancestors(os.getpid())
        pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
        found = (Process.of(pid) for pid in pids if pid not in spared and _network_inode(pid) == inode)
        return [process for process in found if process is not None]

    def close(self) -> None:
        """End everything that runs inside, the gateway last. Calling it again does nothing."""
        if self.gateway is None:
            return
        stop_all((entry for entry in self.processes() if entry != self.gateway), grace_seconds=3.0)
        self.gateway.stop(grace_seconds=3.0)

    def _ask(self, operation: str, host: str, port: int, timeout_seconds: float) -> socket.socket:
        request = {"operation": operation, "host": host, "port": port, "timeout": timeout_seconds}
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout_seconds + 5.0)
            with short_path(_socket_path(self.directory)) as name:
                client.connect(name)
            client.sendall(json.dumps(request).encode() + b"\n")
            answer, descriptors, _, _ = socket.recv_fds(client, 4096, 1)
        if descriptors:
            return socket.socket(fileno=descriptors[0])
        number, message = json.loads(answer or b'[null, "the gateway ended"]')
        if number is None:
            raise TimeoutError(message)
        raise OSError(number, message)


def _wanted_mode(value: str) -> Mode | None:
    for mode in get_args(Mode):
        if value == mode:
            return cast(Mode, mode)
    if value:
        raise NamespaceError(f"{MODE_VARIABLE}={value}: expected net, user or loopback")
    return None


def _socket_path(directory: Path) -> Path:
    return directory / "gateway.sock"


def _start_gateway(directory: Path, mode: Mode, api_port: int, *, detached: bool) -> Process:
    command = [sys.executable, "-m", "e2e.controlplane.gateway", "--mode", mode]
    command += ["--socket", str(_socket_path(directory)), "--forward", str(api_port)]
    command += ["--inside", f"{API_SERVICE_ADDRESS}:{api_port}"]
    for network in (POD_NETWORK, SERVICE_NETWORK):
        command += ["--route", network]
    if not detached:
        command += ["--parent", str(os.getpid())]
    environment = {**os.environ, "PYTHONPATH": str(_REPOSITORY)}
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as answers:
        try:
            gateway = spawn(command, directory / "gateway.log", environment, stdout=writer)
        finally:
            os.close(writer)
        answer = _first_line(answers.fileno())
    if not answer.get("ready"):
        gateway.stop(grace_seconds=1.0)
        raise NamespaceError(str(answer.get("error", f"no answer; see {directory / 'gateway.log'}")))
    return gateway


def _first_line(descriptor: int) -> dict[str, Any]:
    readable, _, _ = select.select([descriptor], [], [], _READY_SECONDS)
    line = os.read(descriptor, 4096) if readable else b""  # one short write to a pipe arrives whole
    answer: dict[str, Any] = json.loads(line or b"{}")
    return answer


def _ancestors(pid: int) -> set[int]:
    chain = set()
    while pid > 0 and pid not in chain:
        chain.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
        except (OSError, IndexError):
            break
    return chain


def _network_inode(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:  # it ended, or belongs to somebody else
        return 0
