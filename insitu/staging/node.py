# SPDX-License-Identifier: Apache-2.0
"""A staging node: receives blocks, folds them where they arrive, hands over windows. Lives inside a Dask worker.

Two threads share the work. The *receiver* owns all sockets, the *folder* owns all states; where blocks are recorded, a
*recorder* is the third. So a slow fold delays neither receiving nor a sign of life, and no state has a lock. What
passes between them passes through queues.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from insitu.config.function import Function
from insitu.config.plugins import plugin_entry
from insitu.errors import OperatorError
from insitu.kept import kept
from insitu.learner import Learner
from insitu.operator import Operator
from insitu.staging.consumers import Consumers, Done, Merger, OneConsumer
from insitu.staging.feeders import Feeders
from insitu.staging.folder import STEPS_PER_BATCH, Folder, Host
from insitu.staging.keeper import Keeper
from insitu.staging.receiver import Receiver
from insitu.staging.tracing import Tracing
from insitu.wire.contact import Contact
from insitu.wire.messages import Feed

if TYPE_CHECKING:
    from insitu.staging.recorder import Recorder, RecordingPlan


class StagingNode:
    """Staging node `number` of a run, with `memory_bytes` for blocks and states, half for each.

    `holder` keeps large states as data of this Dask worker, and hears when the node has ended by itself, since nothing
    was heard of its controller any more. The operators' kernels are compiled first, which takes some
    seconds where they never were before: then nobody has to wait for it in a step. Raises `OperatorError` for an
    operator that fails already there. `close` may be called twice.

    With a `recording` blocks are written there too; an eighth of the memory is for those that wait to be written
    together. What ranks fold themselves is merged here. `learners` are fed here, and those of their processes whose
    turn it is among all `nodes` are here. `one_by_one`: how many steps happen to wait never matters to rounding, since
    each is folded by itself.
    """

    def __init__(
        self,
        contact: Contact,
        number: int,
        operators: Mapping[str, Operator],
        memory_bytes: int,
        holder: Host,
        *,
        recording: "RecordingPlan | None" = None,
        one_by_one: bool = False,
        learners: Mapping[str, Learner] | None = None,
        nodes: int = 1,
        config_hash: str = "",
        retain_bytes: int = 0,
    ) -> None:
        learners = learners or {}
        with kept():
            for name, operator in operators.items():
                _warm_up(name, operator)
        half = memory_bytes // 2
        room = half // 4 if recording is not None else 0

        def make_consumer(feed: Feed, done: Done) -> Merger:
            batch = 1 if one_by_one else STEPS_PER_BATCH

            def make_folder(done: Done) -> Folder:
                prefix = f"insitu-{contact.run}-{number}"
                return Folder(feed.member, operators, half - room, holder, prefix, done, batch, feed.begin, tracing)

            others: list[Callable[[Done], OneConsumer]] = [*feeders.makers(feed.member)]
            if recording is not None:
                others.append(_recorder(recording, number, feed, room))
            return Consumers(make_folder, others, done)

        tracing = Tracing()
        feeders = Feeders(
            contact.run,
            {name: learner.needs for name, learner in learners.items()},
            {name: [partial(_takes, each, k) for k in range(each.processes)] for name, each in learners.items()},
        )
        processes = [(name, process) for name, learner in learners.items() for process in range(learner.processes)]
        keepers = [
            Keeper(name, _order(name, process, learners[name], contact, config_hash), learners[name].threads)
            for k, (name, process) in enumerate(processes)
            if k % nodes == number
        ]
        shipped = [name for name, operator in operators.items() if operator.where == "rank"]
        self._receiver = Receiver(
            contact,
            number,
            half,
            make_consumer,
            feeders,
            keepers,
            shipped,
            tracing,
            retain_bytes=retain_bytes,
            abandoned=holder.abandoned,
        )

    def close(self) -> None:
        """End all threads and sockets."""
        self._receiver.close()


def _takes(learner: Learner, process: int, sequence: int) -> bool:
    return learner.takes(sequence, process)


def _order(name: str, process: int, learner: Learner, contact: Contact, config_hash: str) -> dict[str, Any]:
    """Return what a learner's process is told: who it is, and where the run is; not the server's secret key."""
    keys = contact.keys and replace(contact.keys, server_secret="")
    return {
        "operator": name,
        "process": process,
        "processes": learner.processes,
        "entry": plugin_entry(learner),
        "contact": asdict(replace(contact, keys=keys)),
        "config_hash": config_hash,
    }


def _recorder(plan: "RecordingPlan", node: int, feed: Feed, room: int) -> "Callable[[Done], Recorder]":
    from insitu.staging.recorder import Recorder  # with zarr, which a node that does not record need not import

    return lambda done: Recorder(feed.member, feed.size, plan, node, room, done)


def _warm_up(name: str, operator: Operator) -> None:
    try:
        operator.warm_up()
        if isinstance(operator, Function):
            import_module("insitu.staging.calling")  # xarray and dask.array, which take a second
    except Exception as error:  # an operator is foreign code, and so may its errors be
        raise OperatorError(f"Operator '{name}' cannot be prepared: {type(error).__name__}: {error}") from error
