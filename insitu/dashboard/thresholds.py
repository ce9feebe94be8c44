# SPDX-License-Identifier: Apache-2.0
"""With which numbers the rules of a run compare its results: what is drawn across a series as a line."""

import ast
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from insitu.errors import ConfigError
from insitu.steering.vocabulary import words_of

#: By result, as ``stats.max``, and of an operator with one result by its name alone.
Thresholds = dict[str, list[float]]


def thresholds(directory: Path) -> Thresholds:
    """Return the thresholds of the rules in a run's ``config.yaml``; none where it cannot be read."""
    try:
        config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
        rules = config["steering"]["rules"]
        conditions = [str(rule["when"]) for rule in rules]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return {}
    found: Thresholds = {}
    for condition in conditions:
        for name, level in compared(condition):
            if level not in found.setdefault(name, []):
                found[name].append(level)
    return found


def compared(condition: str) -> Iterator[tuple[str, float]]:
    """Yield each result that a condition compares with a number by itself, and the number.

    What is compared with another result, or is a part of a sum, has no line that could be drawn.

    >>> sorted(compared("stats.max > 0.9 and -1 < drift.ewm(20) or crossing(energy.mean, 2)"))
    [('drift', -1.0), ('energy.mean', 2.0), ('stats.max', 0.9)]
    >>> list(compared("stats.max > 2 * stats.mean"))
    []
    """
    try:
        tree = ast.parse(condition, mode="eval")
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left, _, others):
                sides = [left, *others]
                for one, other in pairwise(sides):
                    yield from _pair(one, other)
                    yield from _pair(other, one)
            case ast.Call(ast.Name("crossing"), [result, level]):
                yield from _pair(result, level)


def _pair(result: ast.expr, level: ast.expr) -> Iterator[tuple[str, float]]:
    number = _number(level)
    if number is None or isinstance(result, ast.Constant):
        return
    try:
        root, words = words_of(result)
    except ConfigError:
        return
    plain = words and words[0].name and words[0].argument is None
    yield f"{root}.{words[0].name}" if plain else root, number


def _number(node: ast.expr) -> float | None:
    try:
        value: Any = ast.literal_eval(node)
    except ValueError:
        return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def of_result(found: Mapping[str, list[float]], operator: str, name: str, alone: bool) -> list[float]:
    """Return the thresholds of one result; `alone` says that its operator has no other."""
    return found.get(f"{operator}.{name}", []) + (found.get(operator, []) if alone else [])
