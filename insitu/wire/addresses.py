# SPDX-License-Identifier: Apache-2.0
"""Where a peer is: the host in an address, and by which address of this machine another one is reached.

Addresses are those of IPv4. They look like ``tcp://10.0.0.7:5555``.
"""

import ipaddress
import os
import socket
from pathlib import Path

from insitu.errors import RunError

LOOPBACK = "127.0.0.1"
#: Where Linux lists the names of local sockets; each container sees its own.
_NAMES = Path("/proc/net/unix")


def host_of(address: str) -> str:
    """Return the host that an address names.

    >>> host_of("tcp://node17:5555"), host_of("tcp://[::1]:*")
    ('node17', '::1')
    """
    return address.partition("://")[2].rpartition(":")[0].strip("[]")


def stays_here(address: str) -> bool:
    """Whether only processes of this machine can reach an address.

    >>> stays_here("tcp://127.0.0.1:*"), stays_here("ipc:///tmp/socket"), stays_here("tcp://10.0.0.7:*")
    (True, True, False)
    """
    if address.startswith(("ipc://", "inproc://")):
        return True
    host = host_of(address)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def new_local() -> str:
    """Return an address for processes of this machine, where there is a kind that leaves nothing behind; else none.

    It is a name in the kernel, not a file: gone with its process, however that ends. Only Linux has such names.
    """
    return f"ipc://@insitu-{os.getpid()}-{os.urandom(8).hex()}" if _NAMES.exists() else ""


def is_here(local: str) -> bool:
    """Whether somebody of this machine listens at an address of `new_local`.

    >>> is_here(""), is_here("ipc://@insitu-1-0")
    (False, False)
    """
    name = local.removeprefix("ipc://")
    return bool(name) and _NAMES.exists() and any(line.endswith(f" {name}") for line in _NAMES.read_text().splitlines())


def toward(address: str) -> str:
    """Return the IPv4 address of this machine by which it reaches the host of `address`, and by which that reaches it.

    Nothing is sent: the system is asked which way it would take. Raises `RunError` where there is none.
    """
    host = host_of(address)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # the port of nobody in particular; a datagram socket connects without a packet
            return str(probe.getsockname()[0])
    except OSError as error:
        raise RunError(
            f"No way leads from this machine ({socket.gethostname()}) to {host} ({error.strerror or error}); name the "
            "interface that they share: network.interface."
        ) from error
