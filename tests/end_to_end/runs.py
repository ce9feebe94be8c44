# SPDX-License-Identifier: Apache-2.0
"""A run as people start it: a YAML file, a process, and what it leaves behind."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import xarray as xr
import yaml

from insitu.controller.network import interfaces
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
#: The whole of a run that nothing goes wrong with takes three seconds; this is for a machine that is busy.
LIMIT_S = 180.0
#: What a busy machine may add to any wait that has a bound.
SLACK_S = 4.0

INSITU = [str(Path(sys.executable).with_name("insitu"))]
#: `insitu` with other waits.
IMPATIENT, PATIENT, HASTY = (
    [sys.executable, "-m", f"tests.end_to_end.{name}"] for name in ("impatient", "patient", "hasty")
)

TOTAL = "tests.end_to_end.folds:Total"


def program(name: str, *arguments: object) -> list[str]:
    """The command of one of the simulations beside this file."""
    return ["python", str(PROGRAMS / f"{name}.py"), *map(str, arguments)]


def total(of: str = "u", over: Any = "step", **keys: Any) -> dict[str, Any]:
    """The entry of an operator that sums up."""
    return {"use": TOTAL, "of": of, "over": over, **keys}


def write(folder: Path, config: Mapping[str, Any]) -> Path:
    """Write a configuration as ``NAME.yaml``."""
    path = folder / f"{config['run']}.yaml"
    path.write_text(yaml.safe_dump(dict(config), sort_keys=False))
    return path


@dataclass(frozen=True)
class Left:
    """What a run has left behind, and what it said."""

    directory: Path
    status: int
    stdout: str
    stderr: str

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.directory / "report.json").read_text()))

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """The lines of the log, all or of one kind."""
        lines = [json.loads(line) for line in (self.directory / "log.jsonl").read_text().splitlines()]
        return [line for line in lines if kind in ("", line["kind"])]

    def results(self, operator: str) -> xr.Dataset:
        with xr.open_zarr(self.directory / "results.zarr", group=operator, chunks=None) as results:
            return results.load()


class Running:
    """A started ``insitu run`` and its folder."""

    def __init__(
        self, folder: Path, config: Mapping[str, Any], *arguments: str, command: Sequence[str] = tuple(INSITU)
    ) -> None:
        self.folder = folder
        self.directory = folder / "runs" / str(config["run"])
        self._temporary = folder / "tmp"
        self._temporary.mkdir(exist_ok=True)
        #: What a run that was killed has left: its Dask workers' folder, which nobody is there to remove.
        self._of_others = set(self._temporary.iterdir())
        self._outputs = folder / "stdout.txt", folder / "stderr.txt"
        with self._outputs[0].open("w") as stdout, self._outputs[1].open("w") as stderr:
            self.process = subprocess.Popen(
                [*command, "run", str(write(folder, config)), *arguments],
                cwd=folder,
                env=environment() | {"TMPDIR": str(self._temporary)},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def stderr(self) -> str:
        return self._outputs[1].read_text()

    @property
    def stdout(self) -> str:
        return self._outputs[0].read_text()

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The lines of one kind that its log has by now."""
        lines = (self.directory / "log.jsonl").read_text().splitlines(keepends=True)
        return [line for line in map(json.loads, (one for one in lines if one.endswith("\n"))) if line["kind"] == kind]

    def windows(self, operator: str) -> int:
        """How many windows of an operator are stored by now."""
        try:
            said = (self.directory / "results.zarr" / operator / "window" / "zarr.json").read_text()
            return int(json.loads(said)["shape"][0])
        except (FileNotFoundError, ValueError):  # not there yet, or just being written
            return 0

    def until(self, *parts: str, limit_s: float = LIMIT_S) -> Path:
        """Wait for a file in the folder, say which."""
        path = self.folder.joinpath(*parts)
        wait_until(lambda: path.exists() or self.process.poll() is not None, limit_s, str(path))
        assert path.exists(), f"the run ended before {path} was there:\n{self.stderr}"
        return path

    def descendants(self, *words: str) -> list[psutil.Process]:
        """The processes below this run whose command line holds all these words."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if all(word in " ".join(process.cmdline()) for word in words):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue  # it ended between the two calls
        return found

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """What Ctrl-C in a terminal does: every process of the group gets the signal."""
        os.killpg(self.process.pid, number)

    def wait(self, limit_s: float = LIMIT_S) -> Left:
        """Wait for the end; nothing temporary may be left, and no step uncounted."""
        status = self.process.wait(limit_s)
        left = sorted(path.name for path in set(self._temporary.iterdir()) - self._of_others)
        assert not left, f"temporary files were left behind: {left}"
        found = Left(self.directory, status, self.stdout, self.stderr)
        if (self.directory / "report.json").exists():
            steps = found.report["steps"]
            assert steps["unaccounted"] == 0, steps
        return found

    def kill(self) -> None:
        """End all that is left, whatever it is, after a test that failed."""
        if self.process.poll() is None:
            # The tracker of shared memory ends last, by itself, and removes what the others leave.
            trackers = {process.pid for process in self.descendants("resource_tracker")}
            for process in [*self.descendants(), self.process]:
                if process.pid not in trackers:
                    process.kill()
            self.process.wait()


@cache
def may_mount() -> bool:
    """Whether this user may mount a file system that only one process and its children see."""
    try:
        command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def on_small_disk(place: str | Path, mib: int) -> tuple[list[str], str]:
    """Return a Python that finds a file system of `mib` MiB at `place`, and what the system says when that is full.

    Each process has one of its own. Where mounts are not allowed no file may be larger than that instead: another
    error, at the same write.
    """
    if may_mount():
        mount = f'mount -t tmpfs -o size={mib}m none "{place}" && exec "$@"'
        return ["unshare", "-rm", "sh", "-c", mount, "sh", sys.executable], os.strerror(errno.ENOSPC)
    limit = f'ulimit -f {2048 * mib}; exec "$@"'
    return ["sh", "-c", limit, "sh", sys.executable], os.strerror(errno.EFBIG)


def outside() -> dict[str, str]:
    """The interfaces of this machine that others can reach."""
    return {name: address for name, address in interfaces().items() if not address.startswith("127.")}


def environment() -> dict[str, str]:
    """The environment of these runs: nothing of another run's, and the checkout to be imported from."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("INSITU_")}
    return outside | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def told(folder: Path, ranks: int) -> list[dict[str, Any]]:
    """What the ranks of ``programs/steady.py`` told of themselves at their end."""
    return [told_by(folder, rank) for rank in range(ranks)]


def told_by(folder: Path, rank: int) -> dict[str, Any]:
    """What one of them told."""
    return dict(json.loads((folder / f"rank-{rank}.json").read_text()))


def cells(results: xr.Dataset, name: str = "total") -> Any:
    return np.asarray(results[name])
