# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, by whose fault.

Every message names the value, the place and the cure. The class tells who has to act:

=======================  =====================================================================
`ConfigError`            whoever wrote the YAML or the command line (exit status 2)
`LocalProtocolError`     whoever called the API wrongly
`RemoteProtocolError`    the peer, which sent nonsense: it alone is dropped
`OperatorError`          the author of an operator, or the data it was given
`ActionError`            whoever asked for an action: a value out of bounds, a name that nobody declared
`RunError`               nobody yet: the run could not go on (exit status 1)
=======================  =====================================================================
"""

from dataclasses import dataclass


class InsituError(Exception):
    """Base of all errors of this package: catch it to catch them all."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration.

    `path` is dotted (``operators.speed.bins``), `line` counts from 1 and is ``None`` where the mistake has no line
    (a command-line override, a missing file).
    """

    path: str
    message: str
    file: str = ""
    line: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part)
        return ": ".join(part for part in (place, self.path, self.message) if part)


class ConfigError(InsituError):
    """A configuration or a call of the command line is wrong; holds all mistakes found, not only the first.

    >>> print(ConfigError([Problem("staging.nodes", "expected an integer of at least 1, got 0", "run.yaml", 7)]))
    run.yaml:7: staging.nodes: expected an integer of at least 1, got 0
    """

    def __init__(self, problems: list[Problem] | str) -> None:
        self.problems = [Problem("", problems)] if isinstance(problems, str) else problems
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ProtocolError(InsituError):
    """Base of the two below; never raised itself."""


class LocalProtocolError(ProtocolError):
    """This side broke a rule: a put outside a step, a step that goes backwards, a shape that changed in mid-run."""


class RemoteProtocolError(ProtocolError):
    """The peer broke a rule: bytes that are no message, a message out of turn, a size above its limit."""


class OperatorError(InsituError):
    """An operator cannot fold what it was given, or was configured so that it never could."""


class ActionError(InsituError):
    """An action that can never be applied: nobody declared that name, or the value is not one it may have."""


class RunError(InsituError):
    """The run cannot go on, through no fault of the configuration: a process died, a port is taken, a disk is full."""
