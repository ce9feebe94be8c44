# SPDX-License-Identifier: Apache-2.0
"""ADIOS2's SST, over its own choice of data plane, with as much in its queue as insitu has in its buffers.

Each rank writes a stream of its own, because the wheel is built without MPI; the consumer reads them in turn. Where
each block is answered, that goes through a pipe: a stream back took 40 ms, as long as tcp may hold an acknowledgement.
"""

import os

import numpy as np
from adios2 import bindings

from benchmarks.consumers import Consumer
from benchmarks.workload import Array, Workload, produce


def consume(work: Workload) -> None:
    adios, consumer = bindings.ADIOS(), Consumer(work)
    if work.answers:
        os.mkfifo(work.note("answers"))
    engines = [_reader(adios, rank, work) for rank in range(work.ranks)]
    answer = _pipe(work, os.O_WRONLY)
    block = np.ones(work.block)
    while consumer:
        for rank, (io, engine) in enumerate(engines):
            if engine.BeginStep(bindings.StepMode.Read, 60.0) != bindings.StepStatus.OK:
                raise RuntimeError(f"The stream of rank {rank} has ended.")
            engine.Get(io.InquireVariable("u"), block, bindings.Mode.Sync)
            engine.EndStep()
            consumer.take(rank, block)
            if answer is not None:
                os.write(answer, b"1")
    for _, engine in engines:
        engine.Close()


def publish(work: Workload, rank: int) -> None:
    adios = bindings.ADIOS()
    io = _io(adios, "write", work)
    zeros = [0] * len(work.block)
    engine = io.Open(str(work.note(f"stream.{rank}")), bindings.Mode.Write)
    variable = io.DefineVariable("u", np.zeros(work.block), list(work.block), zeros, list(work.block), True)
    heard = _pipe(work, os.O_RDONLY)

    def put(_: int, block: Array) -> None:
        engine.BeginStep()
        engine.Put(variable, block, bindings.Mode.Sync)
        engine.EndStep()
        if heard is not None:
            os.read(heard, 1)

    produce(work, rank, put)
    engine.Close()


def _pipe(work: Workload, flags: int) -> int | None:
    """Open the way back; both streams are open by then, so the pipe is there."""
    return os.open(work.note("answers"), flags) if work.answers else None


def _reader(adios: bindings.ADIOS, rank: int, work: Workload) -> tuple[bindings.IO, bindings.Engine]:
    """Open a rank's stream."""
    io = _io(adios, f"read.{rank}", work)
    return io, io.Open(str(work.note(f"stream.{rank}")), bindings.Mode.Read)


def _io(adios: bindings.ADIOS, name: str, work: Workload) -> bindings.IO:
    io = adios.DeclareIO(name)
    io.SetEngine("SST")
    io.SetParameters({"QueueLimit": str(work.waiting), "QueueFullPolicy": "Block", "RendezvousReaderCount": "1"})
    return io
