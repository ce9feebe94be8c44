# SPDX-License-Identifier: Apache-2.0
"""pyzmq by hand over tcp, which copies each block when it is sent, as `put` does too."""

from benchmarks.contenders import pyzmq

pyzmq.COPY = True
consume, publish = pyzmq.consume, pyzmq.publish
