# SPDX-License-Identifier: Apache-2.0
"""A staging node: receives blocks, folds them where they arrive, hands over windows. Lives inside a Dask worker.

Two threads share the work. The *receiver* owns all sockets, the *folder* owns all states. So a slow fold delays neither
receiving nor a sign of life, and no state has a lock. What passes between them passes through two queues.
"""

from collections.abc import Callable, Mapping

from insitu.errors import OperatorError
from insitu.operator import Operator
from insitu.staging.folder import Folded, Folder, Holder
from insitu.staging.receiver import Receiver
from insitu.wire.contact import Contact


class StagingNode:
    """Staging node `number` of a run, with `memory_bytes` for blocks and states, half for each.

    `holder` keeps large states as data of this Dask worker. The operators' kernels are compiled first, which takes some
    seconds where they never were before: then nobody has to wait for it in a step. Raises `OperatorError` for an
    operator that fails already there. `close` may be called twice.
    """

    def __init__(
        self, contact: Contact, number: int, operators: Mapping[str, Operator], memory_bytes: int, holder: Holder
    ) -> None:
        for name, operator in operators.items():
            _warm_up(name, operator)
        half = memory_bytes // 2

        def make_folder(member: int, done: Callable[[Folded], None]) -> Folder:
            return Folder(member, operators, half, holder, f"insitu-{contact.run}-{number}", done)

        self._receiver = Receiver(contact, number, half, make_folder)

    def close(self) -> None:
        """End all threads and sockets."""
        self._receiver.close()


def _warm_up(name: str, operator: Operator) -> None:
    try:
        operator.warm_up()
    except Exception as error:  # an operator is foreign code, and so may its errors be
        raise OperatorError(f"Operator '{name}' cannot be prepared: {type(error).__name__}: {error}") from error
