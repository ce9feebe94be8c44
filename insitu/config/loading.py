# SPDX-License-Identifier: Apache-2.0
"""From a file to a configuration, or to all its mistakes at once."""

from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

from pydantic import ValidationError

from insitu.config.document import OVERRIDE, Document, read
from insitu.config.model import Config
from insitu.config.problems import translate
from insitu.config.words import nearest
from insitu.errors import ConfigError, Problem


def load(path: str | PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Load a configuration, with overrides such as ``staging.nodes=2`` applied (their value is YAML).

    Imports the modules of the operators that it names, and touches nothing else. Raises `ConfigError` with all
    mistakes that can be seen without the simulation: each with file, line, path, value and what was expected.
    """
    document = read(fspath(path), overrides)
    if not isinstance(document.data, dict):
        raise ConfigError(document.problems)
    problems = document.problems + _unknown_operators(document)
    try:
        config = Config.model_validate(document.data)
    except ValidationError as error:
        problems += translate(error, Config.model_json_schema(), document)
    if problems:
        raise ConfigError(_one_per_place(problems))
    config.remember(document.places)
    return config


def _unknown_operators(document: Document) -> list[Problem]:
    """Find outputs of operators that are not there.

    On the raw data, not by a validator of the model, which pydantic would not call while any other key is wrong.
    """
    known, outputs = document.data.get("operators"), document.data.get("outputs")
    if not (isinstance(known, dict) and known and isinstance(outputs, list)):
        return []
    problems = []
    for index, output in enumerate(outputs):
        for name in _names(output):
            if name != "*" and name not in known:
                message = f'no operator is called "{name}"{nearest(name, known)} (known are {", ".join(known)})'
                problems.append(document.places.problem(("outputs", index, "of"), message))
    return problems


def _names(output: Any) -> list[str]:
    of = output.get("of") if isinstance(output, dict) else None
    names = of if isinstance(of, list) else [of]
    return [name for name in names if isinstance(name, str)]


def _one_per_place(problems: list[Problem]) -> list[Problem]:
    """Keep the first problem of each place and path, in the order of the file; overrides come last."""
    first: dict[tuple[str, int | None, str], Problem] = {}
    for problem in problems:
        first.setdefault((problem.file, problem.line, problem.path), problem)
    return sorted(first.values(), key=lambda problem: (problem.file == OVERRIDE.file, problem.line or 0))
