# SPDX-License-Identifier: Apache-2.0
"""Python imports this first, in each process: nothing is there that only Linux has, as on macOS with Python 3.11."""

import os
import os.path
import pathlib
import signal
import socket

for module, names in {
    os: ("posix_fallocate", "waitid", "preadv", "pwritev", "sched_getaffinity", "memfd_create", "eventfd"),
    signal: ("sigtimedwait", "sigwaitinfo"),
    socket: ("SOCK_NONBLOCK", "SOCK_CLOEXEC"),
}.items():
    for name in names:
        delattr(module, name)

_isdir, _exists = os.path.isdir, pathlib.Path.exists


def isdir(path):
    return str(path) != "/dev/shm" and _isdir(path)


def exists(self, **keys):
    return not str(self).startswith("/proc/net") and _exists(self, **keys)


os.path.isdir = isdir
pathlib.Path.exists = exists
