# SPDX-License-Identifier: Apache-2.0
"""Start runs, and end those that a failed test has left."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.runs import HASTY, IMPATIENT, INSITU, PATIENT, Running, total

Start = Callable[..., Running]


def _start(folder: Path, started: list[Running]) -> Start:
    def start(
        *command: str,
        ranks: int = 1,
        nodes: int = 1,
        operators: dict[str, Any] | None = None,
        arguments: tuple[str, ...] = (),
        impatient: bool = False,
        patient: bool = False,
        hasty: bool = False,
        **sections: Any,
    ) -> Running:
        """Start ``insitu run``: of `command` on local ranks, folded by `total`, unless the keywords say otherwise."""
        config = {
            "run": f"test{len(started)}",
            "simulation": {"command": list(command), "ranks": ranks} | sections.pop("simulation", {}),
            "staging": {"nodes": nodes} | sections.pop("staging", {}),
            "operators": operators or {"sum": total()},
        } | sections
        place = folder / str(config["run"])
        place.mkdir(exist_ok=True)
        waiting = IMPATIENT if impatient else PATIENT if patient else HASTY if hasty else INSITU
        started.append(Running(place, config, *arguments, command=waiting))
        return started[-1]

    return start


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Running] = []
    yield _start(tmp_path, started)
    for running in started:
        running.kill()


@pytest.fixture(scope="module")
def start_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Like `start`, for runs that several tests of a module look at."""
    started: list[Running] = []
    yield _start(tmp_path_factory.mktemp("runs"), started)
    for running in started:
        running.kill()
