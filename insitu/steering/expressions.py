# SPDX-License-Identifier: Apache-2.0
"""Expressions over results: what the YAML may say in ``when:`` and for the values of actions.

``stats.max > 0.9``, ``modes.residual.ewm(20) > 3 * modes.residual.mean``, ``crossing(energy, 0)``, and
``0.9 * parameters.feed``.

An expression is compiled once: every word is looked up, its kind (condition, number, text) is found, and each chain of
words that leads to a number of the run, such as ``modes.residual.ewm(20)``, becomes one name, a `Reference`. What is
left has names, numbers, operators and calls of listed functions, and is evaluated by simpleeval: no attribute, index,
keyword, comprehension or string formatting is left in it that could reach anything else. An expression of L characters
has at most L operations; numbers are computed as floats, so none takes longer than another.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

from insitu.errors import ConfigError
from insitu.model import PARAMETERS
from insitu.steering.parameters import Value
from insitu.steering.series import Reference
from insitu.steering.vocabulary import (
    FUNCTIONS,
    NAMES,
    Kind,
    Vocabulary,
    Word,
    listed,
    nearest,
    reference,
    source,
    unknown_parameter,
    words_of,
)

#: A longer one is a program, and belongs into a controller. Half a screen.
MAX_CHARACTERS = 1000
#: What is nested deeper is no longer read by people, and simpleeval recurses.
MAX_DEPTH = 40
_ARITHMETIC: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: lambda a, b: math.pow(a, b),
}
_SIGNS: dict[type[ast.AST], Callable[..., Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_COMPARISONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_OPERATORS = _ARITHMETIC | _SIGNS | _COMPARISONS | {ast.Not: operator.not_}
_CALLS = {name: function.call for name, function in FUNCTIONS.items()}


class Expression:
    """A compiled expression: `references` and `parameters` are what it reads, `kind` is what it yields.

    >>> high = Expression("stats.max > 0.9", Vocabulary({"stats": {"mean": 0, "max": 0}}))
    >>> high.kind, [str(reference) for reference in high.references]
    ('condition', ['stats.max'])
    >>> high({"stats.max": 1.2})
    True
    >>> Expression("stats.maxi > 0.9", Vocabulary({"stats": {"mean": 0, "max": 0}}))
    Traceback (most recent call last):
    ...
    insitu.errors.ConfigError: "stats" yields no "maxi"; did you mean "max"? (it yields mean, max)
    """

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        compiler = _Compiler(text, vocabulary)
        self.text = text
        self.kind: Kind = compiler.kind
        self.references: tuple[Reference, ...] = tuple(dict.fromkeys(compiler.references))
        self.parameters: tuple[str, ...] = tuple(dict.fromkeys(compiler.parameters))
        self._tree = compiler.tree
        self._evaluator = SimpleEval(operators=_OPERATORS, functions=_CALLS)

    def __call__(self, names: Mapping[str, Value]) -> Value:
        """Return the value, of names as the references and ``parameters.NAME`` are written.

        Raises `ArithmeticError` or `ValueError` in words where it has none: a division by zero, the root of -1.
        """
        self._evaluator.names = names
        try:
            value: Value = self._evaluator.eval(self.text, previously_parsed=self._tree)
        except InvalidExpression as error:  # pragma: no cover - the compiler has let nothing through
            raise ValueError(str(error)) from error
        return value


class _Compiler:
    """Turns the tree of an expression into one that simpleeval evaluates, and finds its kind on the way."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        self.references: list[Reference] = []
        self.parameters: list[str] = []
        self._vocabulary = vocabulary
        self.tree, self.kind = self._compile(_parse(text), 0)

    def _compile(self, node: ast.expr, depth: int) -> tuple[ast.expr, Kind]:
        if depth > MAX_DEPTH:
            raise ConfigError(f"is nested more than {MAX_DEPTH} deep; a controller in Python may be what you need")
        match node:
            case ast.Constant(value=bool()):
                return node, "condition"
            case ast.Constant(value=int() | float() as value):
                return ast.copy_location(ast.Constant(_as_float(value)), node), "number"
            case ast.Constant(value=str()):
                return node, "text"
            case ast.BoolOp(op, values):
                return ast.BoolOp(op, [self._of("condition", value, depth) for value in values]), "condition"
            case ast.UnaryOp(ast.Not() as op, operand):
                return ast.UnaryOp(op, self._of("condition", operand, depth)), "condition"
            case ast.UnaryOp(op, operand) if type(op) in _SIGNS:
                return ast.UnaryOp(op, self._of("number", operand, depth)), "number"
            case ast.BinOp(left, op, right) if type(op) in _ARITHMETIC:
                left, right = (self._of("number", side, depth) for side in (left, right))
                return ast.BinOp(left, op, right), "number"
            case ast.Compare(left, ops, comparators) if all(type(op) in _COMPARISONS for op in ops):
                return self._comparison(left, ops, comparators, depth), "condition"
            case ast.IfExp(test, body, orelse):
                return self._choice(test, body, orelse, depth)
            case ast.Call(ast.Name(name), arguments, keywords) if name not in self._vocabulary.results:
                return self._call(name, arguments, keywords, depth)
            case ast.Name() | ast.Attribute() | ast.Call() | ast.Subscript():
                return self._chain(node)
        raise ConfigError(
            f"{source(node)} cannot stand in an expression: it has numbers, results, + - * / % **, comparisons, "
            "and, or, not, a if b else c, and the functions " + ", ".join(FUNCTIONS)
        )

    def _of(self, kind: Kind, node: ast.expr, depth: int) -> ast.expr:
        """Compile a part that must be of one kind."""
        compiled, found = self._compile(node, depth + 1)
        if found not in (kind, "any"):
            cure = f", such as {source(node)} > 0" if (kind, found) == ("condition", "number") else ""
            raise ConfigError(f"{source(node)} is a {found} where a {kind} is needed{cure}")
        return compiled

    def _comparison(self, left: ast.expr, ops: list[ast.cmpop], rest: list[ast.expr], depth: int) -> ast.expr:
        sides = [self._compile(side, depth + 1) for side in (left, *rest)]
        kinds = {kind for _, kind in sides} - {"any"}
        if len(kinds) > 1:
            raise ConfigError(f"compares a {' with a '.join(sorted(kinds))}, which are never equal")
        if kinds & {"text", "condition"} and not all(isinstance(op, ast.Eq | ast.NotEq) for op in ops):
            raise ConfigError(f"a {kinds.pop()} is neither larger nor smaller than another; compare it by == or !=")
        first, *others = (side for side, _ in sides)
        return ast.Compare(first, ops, others)

    def _choice(self, test: ast.expr, body: ast.expr, orelse: ast.expr, depth: int) -> tuple[ast.expr, Kind]:
        (one, kind), (other, second) = self._compile(body, depth + 1), self._compile(orelse, depth + 1)
        if kind != second and "any" not in (kind, second):
            raise ConfigError(f"is a {kind} in one case and a {second} in the other")
        return ast.IfExp(self._of("condition", test, depth), one, other), second if kind == "any" else kind

    def _call(
        self, name: str, arguments: list[ast.expr], keywords: list[ast.keyword], depth: int
    ) -> tuple[ast.expr, Kind]:
        function = FUNCTIONS.get(name)
        if function is None:
            raise ConfigError(
                f'no function is called "{name}"{nearest(name, FUNCTIONS)} (known are {listed(FUNCTIONS)})'
            )
        if keywords or not function.least <= len(arguments) <= (function.most or len(arguments)):
            takes = function.least if function.least == function.most else f"{function.least} or more"
            raise ConfigError(f"{name} takes {takes} arguments, without names, got {len(arguments) + len(keywords)}")
        numbers = [self._of("number", argument, depth) for argument in arguments]
        if name == "crossing":
            if not isinstance(numbers[0], ast.Name):
                raise ConfigError(f"crossing looks back at a result, and {source(arguments[0])} is none")
            numbers.insert(0, self._before(numbers[0].id))
        return ast.Call(ast.Name(name, ast.Load()), numbers, []), function.kind

    def _before(self, name: str) -> ast.expr:
        """Return the value that a reference had at the result before."""
        reference = next((each for each in self.references if str(each) == name), None)
        if reference is None or reference.over_steps != "last":
            raise ConfigError(f"crossing looks back at a result, and {name} is none")
        return self._name(Reference(reference.operator, reference.result, reference.over_cells, "previous"))

    def _name(self, reference: Reference) -> ast.expr:
        self.references.append(reference)
        return ast.Name(str(reference), ast.Load())

    def _chain(self, node: ast.expr) -> tuple[ast.expr, Kind]:
        """Read a chain of words: ``operator.result.over_cells.over_steps``, ``parameters.name``, or a name."""
        root, words = words_of(node)
        if root == PARAMETERS:
            return self._parameter(words)
        if root in NAMES and not words:
            return node, "number"
        if root not in self._vocabulary.results:
            known = [*self._vocabulary.results, PARAMETERS, *NAMES]
            raise ConfigError(
                f'no operator is called "{root}"{nearest(root, known)} (known are {listed(known)}; a text stands in '
                "quotes of its own)"
            )
        return self._name(reference(root, words, self._vocabulary.results[root])), "number"

    def _parameter(self, words: list[Word]) -> tuple[ast.expr, Kind]:
        if len(words) != 1 or words[0].argument is not None:
            raise ConfigError(f"{PARAMETERS} is followed by the name of one parameter: {PARAMETERS}.feed")
        name, known = words[0].name, self._vocabulary.parameters
        if known is not None and name not in known:
            raise ConfigError(unknown_parameter(name, known))
        self.parameters.append(name)
        return ast.Name(f"{PARAMETERS}.{name}", ast.Load()), "any"


def _parse(text: str) -> ast.expr:
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"is {len(text)} characters long, and an expression has at most {MAX_CHARACTERS}")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        where = f" at character {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ConfigError(f'"{text}" is no expression: {what}{where}') from error
    except (RecursionError, MemoryError) as error:
        raise ConfigError("is nested too deeply") from error


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise ConfigError(f"the number {str(value)[:12]}... is too large") from error
