# SPDX-License-Identifier: Apache-2.0
"""Where each key of a configuration stands, so that a mistake found late still names its file and line."""

from dataclasses import dataclass

from insitu.errors import Problem

#: The keys and list indices that lead to a value, as in ``("operators", "speed", "bins")``.
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, from 1; without a line, an override on the command line."""

    file: str = ""
    line: int | None = None


class Places(dict[Path, Place]):
    """Path -> place. A path that stands nowhere itself (a missing key) is placed at what it belongs to."""

    def nearest(self, path: Path) -> Place:
        known = (path[:depth] for depth in range(len(path), -1, -1))
        return next((self[part] for part in known if part in self), Place())

    def problem(self, path: Path, message: str) -> Problem:
        """A mistake at `path`; its dotted form is the one that ``--set`` takes."""
        place = self.nearest(path)
        return Problem(".".join(str(part) for part in path), message, place.file, place.line)
