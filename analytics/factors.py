# SPDX-License-Identifier: Apache-2.0
"""The steps of a place as coefficients times a few rows: what reduced bases are made of.

With x the cells of a place in one step, all steps are kept as x = c₁ r₁ + ... + c_k r_k + m: the rows r lead the
changes of the place, m is its mean, and the coefficients c tell each step. The newest steps wait as they are; when
`block` of them do, they are joined to the rest: deviations from both means, and the difference of the means as one more
row, are turned to their principal directions, of which `carry` are kept (centred merge-and-truncate: D. Ross and
others, Int. J. Computer Vision 77, 2008; M. Iwen and B. Ong, SIAM J. Matrix Anal. Appl. 37, 2016). What is cut off is
orthogonal to all that was and will be cut off, so its squares add up: that is the error, and it is none for data of
rank `carry`.

**Coefficients** are as many as steps: 8 (carry + 1) bytes for each. All that places need to know of each other is in
them. Turning each of them at every joining would cost the square of the number of steps. So they are kept in pieces,
each with the map from the piece before it; pieces of about one length become one.

**Forgetting.** A step counts `forgetting` times as much as the one after it. Rows are stored as they weigh at the
newest step they know of.

**Which method.** ``gram`` finds directions by the products of rows: fast, but squares the ratio of singular values, so
those below 1e-7 of the largest are lost in rounding and are cut off. ``qr`` does not square: 1e-14, at three times the
cost.

Everything here is a pure function of its arguments: states go in and new ones come out, which may share arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from insitu.errors import OperatorError
from insitu.model import Array
from insitu.operator import State

Reals = npt.NDArray[np.float64]
Method = Literal["gram", "qr"]

_EPS = float(np.finfo(np.float64).eps)
#: Weights do not get smaller than this, so that what is forgotten can still be divided by.
_TINY = 1e-200


@dataclass(frozen=True, slots=True)
class Factors:
    """How steps are factored."""

    carry: int
    forgetting: float = 1.0
    method: Method = "gram"

    @property
    def block(self) -> int:
        """How many steps are joined at once: about as many as cost least for each."""
        return 2 * self.carry - 1

    def update(self, state: State, steps: Sequence[int], samples: Sequence[Array]) -> State:
        """Return the state with the cells of further steps, flat `samples`, which are not kept."""
        known = state or {"factor": None, "pending": [], "waiting": []}
        factor, pending, waiting = known["factor"], known["pending"], known["waiting"]
        begin = 0
        while begin < len(steps):
            end = min(len(steps), begin + self.block - len(waiting))
            pending, waiting = [*pending, *samples[begin:end]], [*waiting, *steps[begin:end]]
            if len(waiting) == self.block:
                factor, pending, waiting = self._with_samples(factor, pending, waiting), [], []
            begin = end
        kept = len(waiting) - len(steps)  # of before; the others belong to the caller
        pending = [*pending[: max(0, kept)], *(sample.copy() for sample in pending[max(0, kept) :])]
        return {"factor": factor, "pending": pending, "waiting": waiting}

    def merge(self, a: State, b: State) -> State:
        """Return the state of the steps of both."""
        if not a or not b:
            return a or b
        both = a["factor"] and b["factor"]
        factor = self._with_factor(a["factor"], b["factor"]) if both else a["factor"] or b["factor"]
        pending, waiting = [*a["pending"], *b["pending"]], [*a["waiting"], *b["waiting"]]
        if len(waiting) >= self.block:
            factor, pending, waiting = self._with_samples(factor, pending, waiting), [], []
        return {"factor": factor, "pending": pending, "waiting": waiting}

    def settled(self, state: State) -> State:
        """Return all steps of a state as one factor.

        Its ``rows``, the mean last, are orthogonal; its ``history`` are the pieces that `coefficients` reads; its
        ``weight`` is that of all steps at the ``newest``; ``cut_off`` is the sum of the squares that are lost.
        """
        if not state["waiting"]:
            return dict(state["factor"])
        return self._with_samples(state["factor"], state["pending"], state["waiting"])

    def products(self, state: State, steps: npt.NDArray[np.int64], table: Reals, shares: Reals) -> tuple[Reals, Reals]:
        """Return tableᵀ (x - s), (columns, cells), and s, the sum of `shares` times x, of the cells x in `steps`.

        `table` and `shares` have a row for each of `steps`, all of which the state has.
        """
        none = np.zeros((0, 1))
        factor = state["factor"] or {"rows": np.zeros((1, state["pending"][0].size)), "history": []}
        its, own = _common(steps_of(factor), steps)
        lead = coefficients(factor)[its] if len(its) else none
        these, others = _common(np.array(state["waiting"], np.int64), steps)
        samples = np.stack([state["pending"][k] for k in these]).astype(float) if len(these) else none
        with np.errstate(invalid="ignore"):
            total = shares[own] @ lead @ factor["rows"] + shares[others] @ samples
            found = table[own].T @ lead[:, :-1] @ factor["rows"][:-1]
            found += np.outer(table[own].sum(axis=0), factor["rows"][-1] - total)
            found += table[others].T @ (samples - total)
        return found, total

    def weights(self, steps: npt.NDArray[np.int64], latest: int) -> Reals:
        """Return how much each of `steps` weighs at the step `latest`."""
        return np.maximum(self.forgetting ** (latest - steps).astype(float), _TINY)

    def leading(self, rows: Reals) -> tuple[Reals, float]:
        """Return the leading directions in which rows combine, (rows, at most carry), and the square cut off.

        Raises `OperatorError` for rows whose squares no float64 holds.
        """
        if not rows.shape[1]:
            return np.zeros((len(rows), 0)), 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            products = rows @ rows.T if self.method == "gram" else np.zeros((0, 0))
            total = np.trace(products) if self.method == "gram" else np.einsum("rc,rc->", rows, rows)
        if not np.isfinite(total):
            raise OperatorError(
                "values are so far from their mean that their squares overflow; publish them in another unit"
            )
        if self.method == "gram":
            squares, turns = np.linalg.eigh(products)
            squares, turns = squares[::-1], turns[:, ::-1]
        else:
            _, singular, right = np.linalg.svd(np.linalg.qr(rows.T, mode="r"))
            squares, turns = singular**2, right.T
        known = squares > squares[0] * self.floor(len(rows)) ** 2
        return turns[:, : len(squares)][:, known][:, : self.carry], float(squares[known][self.carry :].sum())

    def floor(self, rows: int) -> float:
        """Return the ratio to the largest singular value below which others are rounding."""
        return float(np.sqrt(8 * rows * _EPS) if self.method == "gram" else 8 * rows * _EPS)

    def _with_samples(self, factor: State | None, pending: Sequence[Array], waiting: Sequence[int]) -> State:
        """Return the factor with further steps."""
        steps = np.array(waiting, np.int64)
        weights = self.weights(steps, int(steps.max()))
        n = len(factor["rows"]) - 1 if factor else 0
        stacked = np.empty((n + len(steps) + 1, pending[0].size))
        if factor:
            stacked[:n] = factor["rows"][:-1]
        rows = stacked[n:-1]
        np.stack(pending, out=rows)
        with np.errstate(invalid="ignore", over="ignore"):
            mean = weights @ rows / weights.sum()
            rows -= mean
        if self.forgetting < 1:
            rows *= np.sqrt(weights)[:, np.newaxis]
        new = np.column_stack([np.diag(1 / np.sqrt(weights)), np.ones(len(steps))])
        other = _Other(steps, int(steps.max()), float(weights.sum()), new, mean, 0.0)
        return self._joined(factor, other, stacked)

    def _with_factor(self, a: State, b: State) -> State:
        """Return the factor of the steps of both."""
        between = np.empty((1, a["rows"].shape[1]))
        stacked = np.concatenate([a["rows"][:-1], b["rows"][:-1], between])
        other = _Other(steps_of(b), b["newest"], b["weight"], coefficients(b), b["rows"][-1], b["cut_off"])
        return self._joined(a, other, stacked)

    def _joined(self, a: State | None, b: "_Other", stacked: Reals) -> State:
        """Return the factor of the steps of both; `stacked` has the rows of both, and one more to be filled in here."""
        first = a or {"newest": b.newest, "weight": 0.0, "rows": b.mean[np.newaxis], "history": [], "cut_off": 0.0}
        n, newest = len(first["rows"]) - 1, max(first["newest"], b.newest)
        fade_a, fade_b = np.sqrt(self.weights(np.array([first["newest"], b.newest]), newest)).tolist()
        weight_a, weight_b = first["weight"] * fade_a**2, b.weight * fade_b**2
        if self.forgetting < 1:
            stacked[:n] *= fade_a
            stacked[n:-1] *= fade_b
        weight = weight_a + weight_b
        with np.errstate(invalid="ignore"):
            between = b.mean - first["rows"][-1]
            mean = first["rows"][-1] + between * (weight_b / weight)
            np.multiply(between, np.sqrt(weight_a / weight * weight_b), out=stacked[-1])
        bad = ~np.isfinite(mean)
        if bad.any():
            stacked[:, bad], mean[bad] = 0.0, np.nan
        turns, cut_off = self.leading(stacked)
        rows = np.empty((turns.shape[1] + 1, stacked.shape[1]))
        np.matmul(turns.T, stacked, out=rows[:-1])
        rows[-1] = mean
        parted = (weight_b / weight_a / weight, weight_a / weight_b / weight) if a else (0.0, 0.0)
        onward = _with_constant(turns[:n] / fade_a, -np.sqrt(parted[0]) * turns[-1])[: n + 1 if a else 0]
        new = b.coefficients @ _with_constant(turns[n:-1] / fade_b, np.sqrt(parted[1]) * turns[-1])
        return {
            "newest": newest,
            "weight": weight,
            "rows": rows,
            "history": _evened([*first["history"], {"map": onward, "new": new, "steps": b.steps}]),
            "cut_off": first["cut_off"] * fade_a**2 + b.cut_off * fade_b**2 + cut_off,
        }


@dataclass(frozen=True, slots=True)
class _Other:
    """What is joined to a factor, but for its rows."""

    steps: npt.NDArray[np.int64]
    newest: int
    weight: float
    coefficients: Reals
    mean: Reals
    cut_off: float


def steps_of(factor: State) -> npt.NDArray[np.int64]:
    """Return the steps of a factor, in the order of its coefficients."""
    return np.concatenate([np.zeros(0, np.int64), *(piece["steps"] for piece in factor["history"])])


def coefficients(factor: State) -> Reals:
    """Return the coefficients of all steps of a factor, (steps, rows), as the factor has them; the mean's are one."""
    pieces: list[Reals] = []
    onward: Reals | None = None
    for piece in reversed(factor["history"]):
        pieces.append(piece["new"] if onward is None else piece["new"] @ onward)
        onward = piece["map"] if onward is None else piece["map"] @ onward
    return np.concatenate(pieces[::-1])


def _common(some: npt.NDArray[np.int64], steps: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """Return where in both the steps are that both have."""
    _, here, there = np.intersect1d(some, steps, assume_unique=True, return_indices=True)
    return here, there


def _with_constant(turns: Reals, shift: Reals) -> Reals:
    """Return the map of coefficients, the mean's among them: c turns + shift."""
    last = np.zeros((len(turns) + 1, 1))
    last[-1] = 1.0
    return np.hstack([np.vstack([turns, shift]), last])


def _evened(history: list[State]) -> list[State]:
    """Join the last pieces while they are of about one length, so that there are few."""
    while len(history) > 1 and len(history[-2]["new"]) <= len(history[-1]["new"]):
        before, last = history[-2:]
        new = np.concatenate([before["new"] @ last["map"], last["new"]])
        steps = np.concatenate([before["steps"], last["steps"]])
        history = [*history[:-2], {"map": before["map"] @ last["map"], "new": new, "steps": steps}]
    return history
