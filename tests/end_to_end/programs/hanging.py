# SPDX-License-Identifier: Apache-2.0
"""What a Dask worker loads before it starts, where a test wants it never to: its file system hangs, say."""

import threading

threading.Event().wait(600.0)
