"""Give every pod an address of its own, and say what kind of network this process is in.

With AnyIP routes (a network namespace made for the cluster) pods get addresses of 10.244.0.0/16. Without,
they get addresses of 127.0.0.0/8, which the EndpointSlice API refuses: Services cannot work then. It changes
no network.
"""

from __future__ import annotations

import ipaddress
import os
import socket

POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"


def is_local(address: str) -> bool:
    """Whether this process can listen on an address, which is what an AnyIP route makes possible."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def has_pod_network() -> bool:
    """Whether pod addresses can be bound here."""
    return is_local("10.244.255.254")


def has_service_network() -> bool:
    """Whether ClusterIPs can be bound here."""
    return is_local("10.96.255.254")


def default_pod_network() -> str:
    """Return the network to take pod addresses from: AnyIP, or a part of loopback for this process."""
    if has_pod_network():
        return POD_NETWORK
    return f"127.{16 + os.getpid() % 224}.0.0/16"


class AddressPool:
    """Hands out addresses of one network; one that was given back is reused as late as possible."""

    def __init__(self, network: str) -> None:
        self._network = ipaddress.ip_network(network)
        self._next = 1
        self._used: set[str] = set()

    def reserve(self, address: str) -> bool:
        """Take one particular address; False if it is taken or not of this network."""
        if address in self._used or ipaddress.ip_address(address) not in self._network:
            return False
        self._used.add(address)
        return True

    def take(self) -> str:
        """Take a free address; raises `RuntimeError` when all are in use."""
        for _ in range(self._network.num_addresses):
            address = str(self._network[self._next % self._network.num_addresses])
            self._next += 1
            if address.rpartition(".")[2] not in ("0", "255") and self.reserve(address):
                return address
        raise RuntimeError(f"all pod addresses of {self._network} are in use")

    def give_back(self, address: str) -> None:
        """Return an address."""
        self._used.discard(address)
