# SPDX-License-Identifier: Apache-2.0
"""The words of expressions: functions, names, and the chains of words that lead to a number of a run.

A chain begins with an operator's name: ``operator.result``, ``operator.result.max`` where the result is an array (its
largest value), and behind that what becomes of the numbers of several results, as in ``operator.result.ewm(20)``. An
operator with one result needs no name of it.

An array whose name is itself a word for cells, as ``max`` of ``stats``, means that of its cells where nothing is said:
the largest over cells of the largest over steps is the largest of all.
"""

import ast
import difflib
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from insitu.errors import ConfigError
from insitu.steering.series import OVER_CELLS, OVER_STEPS, Reference

#: Stands for the dimensions of an array that has some, though it is not known how many.
SOME_DIMS = -1
#: Names that every expression may use, and what they mean.
NAMES = {
    "step": "the index of the last step of the result that is judged",
    "time": "that step's physical time",
}

Kind = Literal["condition", "number", "text", "any"]


def crossing(before: float, now: float, level: float) -> bool:
    """Say whether a number has crossed a level since the result before, upwards or downwards.

    >>> crossing(-1.0, 0.0, 0.0), crossing(0.0, 1.0, 0.0), crossing(2.0, -1.0, 0.0)
    (True, False, True)
    """
    return before < level <= now or before > level >= now


def clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the vocabulary: how many numbers it takes (``most`` ``None``: any number), and what it gives."""

    call: Callable[..., Any]
    least: int
    most: int | None
    kind: Kind
    meaning: str


FUNCTIONS: dict[str, Function] = {
    "abs": Function(abs, 1, 1, "number", "magnitude"),
    "ceil": Function(math.ceil, 1, 1, "number", "the next integer above"),
    "clip": Function(clip, 3, 3, "number", "clip(x, low, high): the nearest number from low to high"),
    "crossing": Function(crossing, 2, 2, "condition", "crossing(x, level): x has passed it since the last result"),
    "exp": Function(math.exp, 1, 1, "number", "exponential"),
    "floor": Function(math.floor, 1, 1, "number", "the next integer below"),
    "isfinite": Function(math.isfinite, 1, 1, "condition", "neither infinite nor NaN"),
    "isnan": Function(math.isnan, 1, 1, "condition", "not a number"),
    "log": Function(math.log, 1, 1, "number", "natural logarithm"),
    "max": Function(max, 2, None, "number", "the largest of several numbers"),
    "min": Function(min, 2, None, "number", "the smallest of several numbers"),
    "sqrt": Function(math.sqrt, 1, 1, "number", "square root"),
}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that belong to one run.

    `results` gives of every operator the dimensions of its results by name: none is a number, the cells of a field
    count as one or more (`SOME_DIMS` where it is not known how many). It gives ``None`` for an operator of which they
    are not known yet; `parameters` is ``None`` until the simulation has declared them. What is not known passes, and
    is looked at again when it is.
    """

    results: Mapping[str, Mapping[str, int] | None]
    parameters: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """One link of a chain: ``.name``, ``.name(argument)``, or ``[argument]`` with the empty name."""

    name: str
    argument: int | None = None


def reference(root: str, words: list[Word], results: Mapping[str, int] | None) -> Reference:
    """Return the number that a chain of words behind the name of an operator leads to.

    `results` are those of the operator, as `Vocabulary` has them.
    """
    rest = list(words)
    if rest and (results is None or rest[0].name in results or len(results) > 1) and rest[0].argument is None:
        result = rest.pop(0).name
        if results is not None and result not in results:
            raise ConfigError(f'"{root}" yields no "{result}"{nearest(result, results)} (it yields {listed(results)})')
    elif results is not None and len(results) == 1:
        result = next(iter(results))
    else:
        what = f": {listed(results)}" if results else ""
        raise ConfigError(f'"{root}" yields several results, say which{what}')
    over_cells = _over_cells(root, result, None if results is None else results[result], rest)
    return Reference(root, result, over_cells, *_over_steps(f"{root}.{result}", rest))


def _over_cells(root: str, result: str, dims: int | None, rest: list[Word]) -> str:
    """Take the word that makes one number of a result's array off `rest`."""
    if dims == 0:
        return ""
    word = rest[0] if rest else None
    if word is not None and word.name == "" and dims in (None, 1, SOME_DIMS):
        return f"[{rest.pop(0).argument}]"
    if word is not None and word.name == "":
        which = f"[{word.argument}] is none: it has {dims} dimensions; take one of {listed(OVER_CELLS)}"
        raise ConfigError(f'"{root}.{result}" is an array; of its numbers {which}')
    if dims is None:
        # Whether `mean` is over cells or over steps is not known yet; the expression is compiled again when it is.
        return ""
    if word is not None and word.name in OVER_CELLS:
        return rest.pop(0).name
    if result in OVER_CELLS:
        return result
    raise ConfigError(
        f'"{root}.{result}" is an array; say which number of it is meant, by one of {listed(OVER_CELLS)}'
        + (f", or {root}.{result}[0]" if dims in (1, SOME_DIMS) else "")
    )


def _over_steps(whole: str, rest: list[Word]) -> tuple[str, int]:
    """Read what is left of a chain: how the numbers of several results become one."""
    if not rest:
        return "last", 0
    word = rest.pop(0)
    if word.name not in OVER_STEPS:
        named = f'"{word.name}"' if word.name else f"[{word.argument}]"
        raise ConfigError(f"{whole} has no {named}{nearest(word.name, OVER_STEPS)} (it has {listed(OVER_STEPS)})")
    if (word.name == "ewm") != (word.argument is not None):
        cure = "ewm(20), with the number of results" if word.name == "ewm" else f"{word.name}, without parentheses"
        raise ConfigError(f"{whole}.{word.name}: write {cure}")
    if word.argument is not None and word.argument < 1:
        raise ConfigError(f"{whole}.ewm({word.argument}): the number of results must be at least 1")
    if rest:
        raise ConfigError(f"{whole}.{word.name} is a number, nothing follows it")
    return word.name, word.argument or 0


def words_of(node: ast.expr) -> tuple[str, list[Word]]:
    """Take a chain of attributes, calls with an integer and integer indices apart."""
    words: list[Word] = []
    at = node
    while True:
        match at:
            case ast.Name(root):
                return root, words[::-1]
            case ast.Attribute(below, name):
                words.append(Word(name))
            case ast.Call(ast.Attribute(below, name), [ast.Constant(value=int(argument))], []):
                words.append(Word(name, argument))
            case ast.Subscript(below, ast.Constant(value=int(argument))):
                words.append(Word("", argument))
            case _:
                raise ConfigError(
                    f"{source(node)} is no result; they are written as operator.result, operator.result.max or "
                    "operator.result.ewm(20)"
                )
        at = below


def unknown_parameter(name: str, known: Iterable[str]) -> str:
    """Say that the simulation has no such parameter."""
    known = list(known)
    return f'the simulation has no parameter "{name}"{nearest(name, known)} (it has {listed(known) or "none"})'


def nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def listed(known: Iterable[str]) -> str:
    return ", ".join(known)


def source(node: ast.expr) -> str:
    return f'"{ast.unparse(node)}"'
