# SPDX-License-Identifier: Apache-2.0
"""Look at a run that goes on, from a notebook: its last steps and those to come, its parameters, the results so far.

    >>> run = insitu.attach()  # doctest: +SKIP
    >>> run["u"][-1]  # the newest retained step of it, exactly  # doctest: +SKIP
    <xarray.DataArray 'u' (y: 256, x: 256)> ...
    >>> for u in run.steps("u", select={"y": slice(0, 64), "x": 7}):  # until the run ends  # doctest: +SKIP
    ...     print(int(u.step), float(u.max()))

Whoever is attached is a viewer as the dashboard is: nothing is sent that it has not asked for, so it can come and go,
and a slow one misses steps instead of holding up the run. It cannot change anything; `insitu.steer` can.

=========== ==================================================================
`run`       `AttachedRun`: all that can be asked
`variable`  a variable as a sequence of its retained steps
`exact`     which steps are retained, and their cells from all staging nodes
`asking`    one question after the other, with limits
`finding`   which run is meant where none is named
`saving`    steps in a file
=========== ==================================================================
"""

import os

from insitu.attaching.finding import find
from insitu.attaching.run import AttachedRun
from insitu.wire.contact import Contact

__all__ = ["AttachedRun", "attach"]


def attach(contact: str | os.PathLike[str] | None = None) -> AttachedRun:
    """Look at a run that goes on, by its contact file, or by the run's directory that holds it.

    Without `contact` it is the run of INSITU_CONTACT, else the newest under ``./runs`` that goes on. Raises `RunError`
    where there is no such run, it lets nobody look, or it does not answer.
    """
    path = find(contact)
    return AttachedRun(Contact.read(path), path)
