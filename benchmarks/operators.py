# SPDX-License-Identifier: Apache-2.0
"""Every operator on one core: GB/s of input, beside what memory gives and the best library for the same work.

    python -m benchmarks.operators [--rounds 3] [--quick]

*Folded* is what `update` takes in, eight steps at a time, as a staging node gives those that waited. *With the result*
counts `finalize` too, at the end of a window of all steps: for those that keep samples or positions, that is the work.
The library (`operator_cases`) is given the whole window at once, and compared with that. ``np.sum`` reads the same
arrays. *A 16th* is the same with a sixteenth of the cells (numbers, particles) in a step: what does not grow with the
cells has the larger part there.

A second table tells how the time of a window grows with what else there is: components, members, and the places that
fields are split into (ranks or nodes), of which one is finalised after all have been put together.

Time is the thread's own, on one thread, so that other programs on the machine disturb little.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.common import RESULTS, arguments, report, rounds
from benchmarks.operator_cases import Case, cases, of_members, of_whole_steps
from insitu.operator import Batch, JointOperator, Operator, SeriesOperator, State
from insitu.registry import OPERATORS
from insitu.testing import batch, cut

TOGETHER = 8
#: A contender is called again until it has taken so long.
ENOUGH_S = 0.1


def batches(case: Case) -> list[Batch]:
    """Return the steps of a case as they are folded."""
    steps = len(next(iter(case.fields.values())))
    made = [
        batch(case.inputs, {name: part[first : first + TOGETHER] for name, part in case.fields.items()}, first=first)
        for first in range(0, steps, TOGETHER)
    ]
    return [case.operator.seen_batch(each) for each in made]


def folded(operator: Operator, data: Sequence[Batch]) -> list[State]:
    """Return the states: one for each step where steps are kept."""
    if operator.keeps_steps:
        return [operator.update(operator.init(), step) for each in data for step in each.split()]
    state = operator.init()
    for each in data:
        state = operator.update(state, each)
    return [state]


def seconds(run: Callable[[], object]) -> float:
    """Return the processor time of one call, after one that does not count."""
    run()
    times = 0
    begin = time.thread_time()
    while times == 0 or time.thread_time() - begin < ENOUGH_S:
        run()
        times += 1
    return (time.thread_time() - begin) / times


def window(operator: Operator, data: Sequence[Batch]) -> None:
    """Fold a window and read its results."""
    for state in folded(operator, data):
        operator.finalize(state)


def contenders(case: Case) -> tuple[dict[str, Callable[[], float]], str]:
    """Return what is timed, in GB/s; and why the library is not among it, if it is not."""
    data, operator = batches(case), case.operator
    arrays = [array for each in data for some in each.arrays.values() for array in some]

    def rate(run: Callable[[], object], share: float = 1.0) -> float:
        return share * case.nbytes / seconds(run) / 1e9

    timed: dict[str, Callable[[], float]] = {
        "np.sum": partial(rate, lambda: [array.sum() for array in arrays]),
        "folded": partial(rate, lambda: folded(operator, data)),
        "with result": partial(rate, lambda: window(operator, data)),
    }
    try:
        case.call(case.fields)
    except ImportError as error:
        return timed, str(error)
    return timed | {"library": partial(rate, lambda: case.call(case.fields), case.share)}, ""


def compared(n: int, parts: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return a row for each operator, with fields divided by `parts`, and which libraries are missing."""
    whole, part = cases(parts), cases(16 * parts)
    table, missing = [], dict[str, str]()
    for name in sorted(OPERATORS):
        print(f"{name}:", flush=True)
        timed, why = contenders(whole[name])
        small, _ = contenders(part[name])
        missing |= {whole[name].rival: why} if why else {}
        found = rounds({**timed, "a 16th": small["with result"]}, n)
        theirs = found.get("library", math.nan)
        table.append({
            "operator": name, "folded_GB/s": found["folded"], "of np.sum": found["folded"] / found["np.sum"],
            "with_result_GB/s": found["with result"], "a_16th_GB/s": found["a 16th"], "library": whole[name].rival,
            "library_GB/s": theirs, "of library": found["with result"] / theirs,
        })  # fmt: skip
    return table, missing


def placed(case: Case, places: int) -> Callable[[], float]:
    """Return how long it takes to put a field's places together, and to finalise one of them."""
    operator = case.operator
    parts = [folded(operator, [cut(each, places)[k] for each in batches(case)])[0] for k in range(places)]

    def together() -> None:
        if isinstance(operator, JointOperator):
            summary = operator.summarize(operator.init())
            for state in parts:
                summary = operator.combine(summary, operator.summarize(state))
            if isinstance(operator, SeriesOperator):
                summary = operator.follow(summary, {})
            operator.finalize_place(parts[0], summary)
        else:
            whole = operator.init()
            for state in parts:
                whole = operator.merge(whole, state)
            operator.finalize(whole)

    return partial(seconds, together)


def growing(n: int, values: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each way to grow: seconds of the smallest and largest, and the exponent between them."""
    rng = np.random.default_rng(0)
    steps, both = of_whole_steps(4, rng), cases(16)
    ways: dict[tuple[str, str], Callable[[int], Callable[[], float]]] = {}
    for name in ("pca", "dmd"):
        ways[name, "components"] = partial(_wider, steps[name], "components")
    ways["kmeans", "clusters"] = partial(_wider, steps["kmeans"], "clusters")
    ways["diffusion_map", "landmarks"] = lambda k: _wider(steps["diffusion_map"], "landmarks", 8 * k)
    ways["sobol", "members"] = lambda k: _windows(of_members(16, rng, groups=8 * k))
    for name in ("pca", "dmd", "kmeans", "diffusion_map"):
        ways[name, "places"] = partial(placed, steps[name])
    for name in ("histogram", "extremes"):
        ways[name, "places"] = partial(placed, both[name])
    table = []
    for (name, against), way in ways.items():
        print(f"{name} against {against}:", flush=True)
        found = rounds({str(value): way(value) for value in values}, n)
        first, last = found[str(values[0])], found[str(values[-1])]
        scale = {"landmarks": 8, "members": 40}.get(against, 1)
        table.append({
            "operator": name, "against": against, "from": values[0] * scale, "to": values[-1] * scale,
            "first_ms": 1e3 * first, "last_ms": 1e3 * last,
            "exponent": math.log(last / first) / math.log(values[-1] / values[0]),
        })  # fmt: skip
    return table


def _wider(case: Case, key: str, value: int) -> Callable[[], float]:
    return _windows(replace(case, operator=case.operator.model_copy(update={key: value})))


def _windows(case: Case) -> Callable[[], float]:
    return partial(seconds, partial(window, case.operator, batches(case)))


def main() -> None:
    options = arguments(__doc__)
    with threadpool_limits(1):
        for case in cases(16).values():
            case.operator.warm_up()
        table, missing = compared(options.rounds, 4 if options.quick else 1)
        report("Operators on one core, GB/s of input", table, RESULTS / "operators.json", missing)
        grown = growing(options.rounds, (2, 8) if options.quick else (2, 8, 32))
        report("How the time of a window grows", grown, RESULTS / "operators_growth.json")


if __name__ == "__main__":
    main()
