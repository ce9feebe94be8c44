# SPDX-License-Identifier: Apache-2.0
"""A controller, ranks and consoles as real processes, with gates that a test opens and networks that it can hold."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from insitu.console import Console
from insitu.controller.record import read_record
from insitu.steering.actions import Receipt
from insitu.wire.contact import Contact
from tests.steering.proxy import Proxy
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
#: Only a hang takes so long; a machine that others use too may stand still for a minute or two.
LIMIT_S = 300.0


class Scene:
    """What runs in one folder."""

    def __init__(self, folder: Path, ranks: int = 2, *, stays: bool = False, **options: object) -> None:
        self.folder = folder
        self.size = ranks
        self.proxies: list[Proxy] = []
        self.consoles: list[Console] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        said = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        said += ["--stays"] * stays
        self.controller = self._start(
            "controller", "-m", "tests.steering.programs.controller", str(folder), "--ranks", str(ranks), *said
        )
        self._until(lambda: (folder / "contact.json").exists(), "the controller")
        self.contact = Contact.read(folder / "contact.json")
        self.ranks: list[subprocess.Popen[bytes]] = []

    def begin(self, *options: object, gate: int | None = None, delay_s: float | None = None, seed: int = 0) -> None:
        """Start the ranks, each to wait before the step behind `gate`, and each behind a network of that delay."""
        for rank in range(self.size):
            if gate is not None:
                self.open(rank, gate)
            contact = self.folder / f"contact-{rank}.json"
            address = self.contact.address
            if delay_s is not None:
                self.proxies.append(Proxy(int(address.rsplit(":", 1)[1]), delay_s, seed + rank))
                address = f"tcp://127.0.0.1:{self.proxies[-1].port}"
            replace(self.contact, address=address).write(contact)
            place = {"INSITU_CONTACT": str(contact), "INSITU_RANK": str(rank), "INSITU_SIZE": str(self.size)}
            self.ranks.append(
                self._start(f"rank-{rank}", "-m", "tests.steering.programs.rank", *map(str, options), **place)
            )

    def begin_mpi(self, *command: str, delay_s: float, seed: int = 0) -> None:
        """Start all ranks of a program by mpiexec, behind one slow network."""
        self.proxies.append(Proxy(int(self.contact.address.rsplit(":", 1)[1]), delay_s, seed))
        contact = self.folder / "contact-mpi.json"
        replace(self.contact, address=f"tcp://127.0.0.1:{self.proxies[-1].port}").write(contact)
        mpiexec = str(Path(sys.executable).with_name("mpiexec"))
        place = {"INSITU_CONTACT": str(contact)}
        self.ranks = [self._start("mpi", "-n", str(self.size), sys.executable, *command, by=mpiexec, **place)]

    def _start(
        self, name: str, *command: str, by: str = sys.executable, **environment: str
    ) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}.out").open("w") as out, (self.folder / f"{name}.err").open("w") as err:
            outside = {key: value for key, value in os.environ.items() if not key.startswith("INSITU_")}
            process = subprocess.Popen(
                [by, *command],
                cwd=self.folder,
                env=outside | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        self.processes.append(process)
        return process

    def console(self) -> Console:
        self.consoles.append(Console(self.contact, "ada"))
        return self.consoles[-1]

    def open(self, rank: int, step: int) -> None:
        """Let a rank go on up to a step."""
        gate = self.folder / f"gate-{rank}"
        fresh = self.folder / f"gate-{rank}.new"
        fresh.write_text(str(step))
        os.replace(fresh, gate)

    def log(self, rank: int) -> list[dict[str, Any]]:
        """What a rank has written down so far, whole lines only."""
        path = self.folder / f"rank-{rank}.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def until_at(self, rank: int, step: int) -> None:
        """Wait until a rank has closed a step."""
        self._until(lambda: any(line["n"] == step for line in self.log(rank)), f"rank {rank} at step {step}")

    def trace(self, *words: object) -> list[list[str]]:
        """The lines of the controller that begin so."""
        wanted = [str(word) for word in words]
        lines = [line.split() for line in (self.folder / "controller.out").read_text().splitlines()]
        return [line for line in lines if line[: len(wanted)] == wanted]

    def until_traced(self, *words: object, number: int = 1) -> list[str]:
        self._until(lambda: len(self.trace(*words)) >= number, f"{number} times '{' '.join(map(str, words))}'")
        return self.trace(*words)[number - 1]

    def _until(self, done: Any, what: str) -> None:
        wait_until(done, LIMIT_S, what)

    def end(self, processes: "Sequence[subprocess.Popen[bytes]] | None" = None) -> None:
        """Wait for processes to end by themselves: all, or these."""
        for process in self.processes if processes is None else processes:
            assert process.wait(LIMIT_S) == 0, self.said()

    def said(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(self.folder.glob("*.err")))

    @property
    def receipts(self) -> list[Receipt]:
        return read_record(self.folder / "actions.jsonl")

    def close(self) -> None:
        for console in self.consoles:
            console._socket.close(linger_s=0)
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for proxy in self.proxies:
            proxy.close()
