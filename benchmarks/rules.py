# SPDX-License-Identifier: Apache-2.0
"""How many rules a second are judged, beside Python's own evaluation of the same expressions.

    python -m benchmarks.rules [--rounds 5] [--ticks 2000]

Each tick brings one result of three numbers. "whole" judges rules as a run does: numbers into their series, names,
expressions; "expressions" evaluates the compiled expressions alone; "eval" is Python's, on code compiled before, with
the same names: fast, and unsafe. Time is the thread's own, so that other programs on the machine disturb little.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.common import report, rounds
from insitu.results import Provenance
from insitu.steering.expressions import Expression
from insitu.steering.lockstep import Observation, Tick
from insitu.steering.rules import Judgement, Rule, Rules
from insitu.steering.vocabulary import Vocabulary

WORDS = Vocabulary({"flow": {"max": 0, "residual": 0, "energy": 0}}, ["feed"])
#: By a short name: the expression, and the same with plain names, for `eval`.
EXPRESSIONS = {
    "one comparison": ("flow.max > 2", "a > 2"),
    "ewm and mean": ("flow.residual.ewm(20) > 3 * flow.residual.mean + 9", "b > 3 * c + 9"),
    "three parts": ("flow.max > 2 or crossing(flow.energy, 5) or parameters.feed > 1", "a > 2 or d < 5 <= e or f > 1"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ticks", type=int, default=2000)
    options = parser.parse_args()
    rows = []
    for name, (text, plain) in EXPRESSIONS.items():
        expression = Expression(text, WORDS)
        names = {str(reference): 0.5 for reference in expression.references} | {"parameters.feed": 0.04}
        own, code = dict.fromkeys("abcdef", 0.5), compile(plain, "rule", "eval")
        contenders = {
            "whole": partial(whole, expression, options.ticks),
            "expressions": partial(rate, partial(expression, names), options.ticks),
            "eval": partial(rate, partial(eval, code, {}, own), options.ticks),
        }
        rows.append({"rule": name} | rounds(contenders, options.rounds))
    report("Rules judged per second", rows, Path(__file__).parent / "results" / "rules.json")


def whole(expression: Expression, ticks: int) -> float:
    rules = Rules([Rule("rule", expression)])
    sources = sorted(rules.sources, key=str)
    coming = []
    for n in range(ticks):
        provenance = Provenance(n, n, n, float(n), 1, 0, complete=True)
        numbers = dict.fromkeys(sources, 0.5 + n % 2 * 1e-3)
        coming.append(Tick(n, (Observation("flow", n, n, provenance, numbers),)))
    judgement, begin = Judgement(), time.thread_time()
    for tick in coming:
        rules.judge(tick, {"feed": 0.04}, judgement)
    assert not judgement.wishes
    return ticks / (time.thread_time() - begin)


def rate(call: Callable[[], object], ticks: int) -> float:
    begin = time.thread_time()
    for _ in range(ticks):
        call()
    return ticks / (time.thread_time() - begin)


if __name__ == "__main__":
    main()
