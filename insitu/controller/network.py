# SPDX-License-Identifier: Apache-2.0
"""Where a run listens, and with which keys.

The controller listens at one address of its machine. A staging node listens at the one by which it reaches the
controller, so that one key of the configuration decides for all. Beyond loopback every link is encrypted.
"""

import socket

import psutil

from insitu.config import Config
from insitu.errors import ConfigError
from insitu.wire.addresses import LOOPBACK, stays_here
from insitu.wire.keys import CurveKeys
from insitu.wire.messages import Event
from insitu.wire.sockets import new_keys


def interfaces() -> dict[str, str]:
    """Return the interfaces of this machine that are up and have an IPv4 address: name -> address."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    found = [(name, each) for name, all_of_it in psutil.net_if_addrs().items() for each in all_of_it]
    return {name: each.address for name, each in found if each.family == socket.AF_INET and name in up}


def own_address(config: Config) -> str | None:
    """Return the address that ``network.interface`` names, or ``None`` where it depends on a Dask cluster.

    Raises `ConfigError` for what is none of this machine's.
    """
    interface = config.network.interface
    if interface == "auto":
        return LOOPBACK if config.staging.cluster == "local" else None
    there = interfaces()
    if interface in there:
        return there[interface]
    if interface in there.values() or stays_here(f"tcp://{interface}:*"):
        return interface
    known = ", ".join(f"{name} ({address})" for name, address in there.items())
    text = f"this machine has no interface and no IPv4 address {interface}; it has {known}"
    raise ConfigError([config.problem(("network", "interface"), text)])


def keys_for(config: Config, host: str) -> CurveKeys | None:
    """Return new keys where the configuration or the address asks for them."""
    return new_keys() if config.network.security == "curve" or not stays_here(f"tcp://{host}:*") else None


def dask_in_the_clear(scheduler: str) -> Event | None:
    """Return a warning where a run's keys would pass to the staging nodes over an open link of Dask's."""
    if scheduler.startswith("tls://") or stays_here(scheduler):
        return None
    text = (
        f"The Dask cluster at {scheduler} has no TLS: whoever can listen on its network learns this run's keys, and "
        "whoever can reach the scheduler can run code there. Start it with TLS (tls://...)."
    )
    return Event("warning", "dask-in-the-clear", text)
