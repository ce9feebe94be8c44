# SPDX-License-Identifier: Apache-2.0
"""From a file to a configuration, or to all its mistakes at once."""

from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

from pydantic import ValidationError

from insitu.config import checks
from insitu.config.document import OVERRIDE, Document, read
from insitu.config.model import Config
from insitu.config.problems import translate
from insitu.errors import ConfigError, Problem


def load(path: str | PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Load a configuration, with overrides such as ``staging.nodes=2`` applied (their value is YAML).

    Imports the modules of the operators that it names, and touches nothing else. Raises `ConfigError` with all
    mistakes that can be seen without the simulation: each with file, line, path, value and what was expected.
    """
    document = read(fspath(path), overrides)
    if not isinstance(document.data, dict):
        raise ConfigError(document.problems)
    return _built(document)


def build(data: dict[str, Any]) -> Config:
    """Build a configuration from plain data, as a file would hold it; raises `ConfigError` as `load` does."""
    return _built(Document("", data))


def _built(document: Document) -> Config:
    _put_rules_in_place(document)
    problems = document.problems + checks.in_document(document)
    try:
        config = Config.model_validate(document.data)
    except ValidationError as error:
        problems += translate(error, Config.model_json_schema(), document)
    if problems:
        raise ConfigError(_one_per_place(problems))
    config.remember(document.places)
    if problems := checks.in_config(config):
        raise ConfigError(_one_per_place(problems))
    return config


def _put_rules_in_place(document: Document) -> None:
    """Read ``steering: [...]`` as ``steering: {rules: [...]}``, each rule at its own line all the same."""
    rules = document.data.get("steering")
    if not isinstance(rules, list):
        return
    document.data["steering"] = {"rules": rules}
    for path in [path for path in document.places if path[:1] == ("steering",) and len(path) > 1]:
        document.places[("steering", "rules", *path[1:])] = document.places.pop(path)


def _one_per_place(problems: list[Problem]) -> list[Problem]:
    """Keep the first problem of each place and path, in the order of the file; overrides come last."""
    first: dict[tuple[str, int | None, str], Problem] = {}
    for problem in problems:
        first.setdefault((problem.file, problem.line, problem.path), problem)
    return sorted(first.values(), key=lambda problem: (problem.file == OVERRIDE.file, problem.line or 0))
