# SPDX-License-Identifier: Apache-2.0
"""What the process of a learner says and hears. The rules are those of `messages`.

A learner connects to the controller, which tells it the staging nodes, and subscribes at each of them. A node then
sends it the committed steps, one after the other, and keeps each until the learner has it. So what a learner cannot
take yet waits where it is, and with it, by their credits, the ranks; and a learner that was started anew is sent what
the one before has not taken.

A learner may have several processes, which get different steps and work together. They find each other by the
controller: each says `Join` when it could begin, and when those it worked with are not all there any more; the
controller, which hears of all ends and beginnings, answers with who is to `Meet`.
"""

from dataclasses import dataclass

from insitu.model import Array
from insitu.wire.blocks import BlockSpec


@dataclass(slots=True)
class LearnerHello:
    """Process number `process` of the learner `operator` asks to take part in a run."""

    version: int
    run: str
    operator: str
    host: str
    pid: int
    process: int = 0


@dataclass(slots=True)
class Sources:
    """The learner takes part: each staging node that any rank feeds, and where it is reached."""

    nodes: tuple[tuple[int, str], ...]


@dataclass(slots=True)
class Subscribe:
    """Process number `process` of the learner `operator` asks a staging node for committed steps."""

    version: int
    run: str
    operator: str
    host: str
    pid: int
    process: int = 0


@dataclass(slots=True)
class Lesson:
    """One committed step, as far as it came to this node and the learner needs it; without blocks where it was dropped.

    `blocks` says of each buffer of which rank it is and where it lies.
    """

    sequence: int
    index: int
    time: float
    blocks: tuple[tuple[int, BlockSpec], ...]
    buffers: tuple[Array | bytes | memoryview, ...]


@dataclass(slots=True)
class Learned:
    """The learner has taken all steps up to sequence `upto`: the node may let go of them."""

    upto: int


@dataclass(slots=True)
class Dismiss:
    """The learner `operator`, or one process of it, is stopped: its steps are kept for it no longer."""

    operator: str
    process: int | None = None


@dataclass(slots=True)
class Join:
    """The process would work with the others of its learner, from now on; or those of `generation` do not work together
    any more, and of them `missing` did not come within their time."""

    generation: int
    missing: tuple[int, ...]


@dataclass(slots=True)
class Meet:
    """These processes of the learner work together from now on, and find each other by the name `meeting`.

    Without `members` there is nothing left to do: the others have ended their work.
    """

    generation: int
    members: tuple[int, ...]
    meeting: str
