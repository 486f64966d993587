from __future__ import annotations

import pytest

from e2e.localnode.addresses import AddressPool


def test_addresses_are_unique_and_leave_out_network_and_broadcast() -> None:
    pool = AddressPool("10.244.0.0/22")
    taken = [pool.take() for _ in range(1016)]
    assert len(set(taken)) == 1016
    assert not [address for address in taken if address.endswith((".0", ".255"))]
    with pytest.raises(RuntimeError, match="in use"):
        pool.take()


def test_an_address_that_was_given_back_is_reused_last() -> None:
    pool = AddressPool("10.244.0.0/29")
    first = pool.take()
    pool.give_back(first)
    assert [pool.take() for _ in range(6)][-1] != first
    assert pool.take() == first


def test_an_old_address_can_be_reserved_once() -> None:
    pool = AddressPool("10.244.0.0/24")
    assert pool.reserve("10.244.0.1")
    assert not pool.reserve("10.244.0.1")
    assert not pool.reserve("10.9.0.1")
    assert pool.take() == "10.244.0.2"
