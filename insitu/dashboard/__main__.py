# SPDX-License-Identifier: Apache-2.0
"""The process of a dashboard: ``python -m insitu.dashboard``, started by `insitu.dashboard.launch`.

It says where it is found in one line of JSON on stdout, and ends when its stdin is closed: so it outlives nobody who
has started it, whatever becomes of them.
"""

import asyncio
import json
import signal
import sys
from pathlib import Path

from insitu.dashboard.access import Access, Role
from insitu.dashboard.server import Server
from insitu.dashboard.sources import Finished, Live, Source, tell_apart
from insitu.errors import InsituError


async def serve(places: list[str], host: str, port: int) -> None:
    """Serve a dashboard of the runs at `places`, contact files or directories, until stdin is closed."""
    loop = asyncio.get_running_loop()
    server: Server | None = None

    def news() -> None:
        if server is not None:
            loop.call_soon_threadsafe(server.hub.wake)

    runs: list[Source] = [
        Live(Path(place), news) if place.endswith(".json") else Finished(Path(place)) for place in places
    ]
    tell_apart(runs)
    server = Server(runs, host, port, Access())
    urls = {role.value: server.url(role) for role in Role}
    print(json.dumps({"port": server.port, **urls}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    for run in runs:
        if isinstance(run, Live):
            run.end()
    await server.close()


def main() -> None:
    """Take host, port and places from the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who has started this, and closes stdin
    host, port, *places = sys.argv[1:]
    try:
        asyncio.run(serve(places, host, int(port)))
    except InsituError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
