# SPDX-License-Identifier: Apache-2.0
"""``steady.py`` whose links of rank 0 to staging nodes go through a port of this machine: ``through.py PORT ...``.

The address of the node is told in the file ``node-address``.
"""

import sys
from pathlib import Path
from typing import Any

import steady

from insitu.client import client
from insitu.client.launcher import rank_and_size


def main() -> None:
    port, connect = sys.argv.pop(1), client.connect
    links = 0

    def through(address: str, *others: Any) -> Any:
        nonlocal links
        links += 1
        if links > 1:  # the first is that to the controller
            Path("node-address.new").write_text(address)
            Path("node-address.new").rename("node-address")
            address = f"tcp://127.0.0.1:{port}"
        return connect(address, *others)

    if rank_and_size()[0] == 0:
        client.connect = through  # type: ignore[assignment]
    steady.main()


if __name__ == "__main__":
    main()
