"""Make a network namespace and its addresses by system calls: no `ip` or `unshare` needs to be installed.

Used by `gateway`, on the standard library only. Each function acts on the calling process: none of them may
be called in a process that has work to do outside of the namespace afterwards.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
RTM_NEWROUTE, NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE = 24, 0x1, 0x4, 0x400
RT_TABLE_LOCAL, RTPROT_STATIC, RT_SCOPE_HOST, RTN_LOCAL, RTA_DST, RTA_OIF = 255, 4, 254, 2, 1, 4


def unshare(*, with_user: bool) -> None:
    """Move this process into a new network namespace; `with_user`: and a user namespace where it is root.

    Raises `OSError` where the kernel or its policy refuses.
    """
    if with_user:
        _unshare_users(CLONE_NEWNET)
    else:
        _unshare(CLONE_NEWNET)


def become_root() -> None:
    """Move this process, which must have one thread, into a user namespace where it is root; the network stays.

    Raises `OSError` where the kernel or its policy refuses.
    """
    _unshare_users(0)


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"unshare: {os.strerror(error)}")


def _unshare_users(more: int) -> None:
    uid, gid = os.geteuid(), os.getegid()
    _unshare(CLONE_NEWUSER | more)
    for name, content in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(content)


def loopback_up() -> None:
    """Bring `lo` up; a new network namespace starts with it down (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
        flags = struct.unpack("16sH14x", answer)[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def route_local(network: str) -> None:
    """Make every address of an IPv4 network (`10.244.0.0/16`) one of this namespace's own (AnyIP).

    The message is RTM_NEWROUTE as in rtnetlink(7); the answer is an NLMSG_ERROR whose code is 0 on success.
    """
    address, _, prefix = network.partition("/")
    route = (socket.AF_INET, int(prefix), 0, 0, RT_TABLE_LOCAL, RTPROT_STATIC, RT_SCOPE_HOST, RTN_LOCAL, 0)
    body = struct.pack("=BBBBBBBBI", *route)
    body += struct.pack("=HH4s", 8, RTA_DST, socket.inet_aton(address))
    body += struct.pack("=HHI", 8, RTA_OIF, socket.if_nametoindex("lo"))
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(struct.pack("=IHHII", 16 + len(body), RTM_NEWROUTE, flags, 1, 0) + body)
        code = struct.unpack_from("=i", netlink.recv(4096), 16)[0]
    if code != 0:
        raise OSError(-code, f"route {network}: {os.strerror(-code)}")
