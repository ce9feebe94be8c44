# SPDX-License-Identifier: Apache-2.0
"""Mistakes that no key shows by itself: keys that do not fit each other.

Those of `in_document` are looked for in the raw data, because pydantic would not call a validator while any other key
is wrong, and all mistakes are to be told at once. Those of `in_config` need the operators that the entries build.
"""

from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

from insitu.config import rules
from insitu.config.document import Document
from insitu.config.function import Function
from insitu.config.model import Buffering, Config
from insitu.config.values import indices
from insitu.config.words import nearest
from insitu.errors import Problem
from insitu.learner import Learner
from insitu.model import PARAMETERS, parameter_of
from insitu.operator import Operator
from insitu.selection import steps_taken
from insitu.wire.blocks import Range
from insitu.wire.compression import missing

#: How many steps are looked at for one that several selections have in common.
MEETINGS = 1_000_000


def in_document(document: Document) -> list[Problem]:
    """Return the mistakes that can be seen whatever else is wrong."""
    return _unknown_operators(document) + _buffers_of_one(document) + _expected_of_all(document)


def in_config(config: Config) -> list[Problem]:
    """Return the mistakes of a configuration whose keys are all right by themselves."""
    folded = [operator for operator in config.folds.values() if not operator.sources]
    learnt = [name for learner in config.learners.values() for name in learner.needs]
    inputs = list(dict.fromkeys([*(name for operator in folded for name in operator.inputs), *learnt]))
    unneeded = [
        config.problem(
            ("variables", name),
            f"no operator folds this variable{nearest(name, inputs)} (folded are {', '.join(inputs)})",
        )
        for name in config.variables
        if name not in ("*", *inputs, *config.recorded)
    ]
    steps = [problem for name in config.variables for problem in _of_steps(config, name)]
    codecs = [problem for name in inputs for problem in _of_codec(config, name)]
    _, steering = rules.compiled(config, rules.guessed(config.operators))
    return [
        *unneeded, *_of_parameters(config), *steps, *_of_meetings(config), *codecs, *_of_policy(config),
        *_of_free(config), *_of_chains(config), *_of_where(config), *_of_learners(config), *_of_traces(config),
        *steering,
    ]  # fmt: skip


def _of_parameters(config: Config) -> list[Problem]:
    """Look whether what is to be a parameter can be one; whether there is one of that name only the run can tell."""
    wanted = {name: each.needs if isinstance(each, Learner) else each.inputs for name, each in config.operators.items()}
    return [
        config.problem(
            ("operators", name), f'"{each}": {PARAMETERS} is followed by the name of one parameter: {PARAMETERS}.feed'
        )
        for name, names in wanted.items()
        for each in names
        if not (parameter_of(each) or "feed").isidentifier()
    ]


def _of_chains(config: Config) -> list[Problem]:
    """Look whether the operators whose results others take are there, and come before these."""
    problems, known = [], config.operators
    for name, operator in config.folds.items():

        def at(message: str, name: str = name) -> None:
            problems.append(config.problem(("operators", name, "of"), message))

        for source in operator.sources:
            if source not in known:
                known_are = f"{nearest(source, known)} (known are {', '.join(known)})"
                at(f'no operator is called "{source}"{known_are}; a dot stands between an operator and its result')
            elif isinstance(known[source], Learner):
                at(f'what "{source}" learns cannot be folded; it is in results.zarr, and rules may read it')
            elif isinstance(one := known[source], Function) and not one.yields:
                cure = f"say it there before, as in yields: {{{_results(operator, source)[0]}: {{}}}}"
                at(f'what the function "{source}" yields is known only when it has run; {cure}')
        if operator.sources and isinstance(operator, Function):
            at("is a function, which is given variables; results can be read from results.zarr, also during the run")
        elif operator.sources and any(
            "." not in wanted or parameter_of(wanted) is not None for wanted in operator.inputs
        ):
            at("takes variables and results of operators at once, which come at different times; make two entries")
        elif len(operator.sources) > 1:
            at(f"takes results of {' and '.join(operator.sources)}, but can take those of one operator only")
        elif name in (circle := _onward(config, name)):
            at(f"takes its own results ({' of '.join([name, *circle])}); break the circle")
    return problems


def _results(operator: Operator, source: str) -> list[str]:
    """Return the results of `source` that an operator takes."""
    return [wanted.partition(".")[2] for wanted in operator.inputs if wanted.startswith(f"{source}.")]


def _of_where(config: Config) -> list[Problem]:
    """Look whether operators can fold where they are told to."""
    problems = []
    for name, operator in config.folds.items():
        if operator.where == "staging":
            continue
        fault = ""
        if operator.sources:
            fault = f"folds results, which are put together behind the staging nodes; leave where out of '{name}'"
        elif operator.where == "rank" and operator.not_on_ranks:
            fault = f"'{name}' {operator.not_on_ranks}, so it cannot fold on a rank; take where: staging"
        elif operator.where == "node" and config.staging.transport == "tcp":
            fault = (
                f"'{name}' is to be given blocks over shared memory, and staging.transport is tcp; take transport: "
                "auto, or where: staging"
            )
        if fault:
            problems.append(config.problem(("operators", name, "where"), fault))
    return problems


def _onward(config: Config, name: str) -> list[str]:
    """Return the operators that one follows from, up to the first that comes again."""
    found: list[str] = []
    while name in config.operators and config.operators[name].sources:
        name = config.operators[name].sources[0]
        if name in found:
            break
        found.append(name)
    return found


def _of_learners(config: Config) -> list[Problem]:
    """Look whether this machine has what learners need: packages, devices; and the run those whose models they ask."""
    problems = []
    for name, learner in config.learners.items():
        if fault := learner.fault():
            problems.append(config.problem(("operators", name), fault))
        others = [other for other in config.learners if other != name]
        for asked in learner.asks:
            if asked not in others:
                known = f"{nearest(asked, others)} (known are {', '.join(others) or 'none'})"
                message = f'no learner is called "{asked}"{known}; give one, or the folder of a model'
                problems.append(config.problem(("operators", name, "model"), message))
            elif fault := learner.fault_of_asked(config.learners[asked]):
                problems.append(config.problem(("operators", name), fault))
    return problems


def _of_traces(config: Config) -> list[Problem]:
    """Look whether this machine, the controller's, has what sends traces."""
    # The packages share the namespace `opentelemetry`, so of one that is missing the parent may be missing too.
    module = "opentelemetry.exporter"
    if config.traces is None:
        return []
    if not (find_spec("opentelemetry") and find_spec(module) and find_spec(f"{module}.otlp")):
        message = 'needs OpenTelemetry\'s SDK, which is not installed; pip install "insitu[traces]"'
        return [config.problem(("traces",), message)]
    to = config.traces.to
    if "://" not in to and not Path(to).parent.is_dir():
        return [config.problem(("traces", "to"), f"there is no folder {Path(to).parent}; make it, or take another one")]
    return []


def _of_policy(config: Config) -> list[Problem]:
    """Look whether `every` is there just where the policy needs it."""
    policy, every = config.buffering.policy, config.buffering.every
    if policy == "spill" and config.buffering.then == "spill":
        message = "spill has no meaning with policy spill, which goes to the disk at once; take drop or abort"
        return [config.problem(("variables", "*", "then"), message)]
    if policy == "every" and every is None:
        return [config.problem(("variables", "*", "policy"), "every needs to know which; add every: 10 or what fits")]
    if policy != "every" and every is not None:
        message = f"has no meaning with policy {policy}; leave it out, or take policy: every"
        return [config.problem(("variables", "*", "every"), message)]
    return []


def _of_free(config: Config) -> list[Problem]:
    """Look whether memory can be free again when it is to be."""
    free, transport = config.buffering.free, config.staging.transport
    message = ""
    if free == "durable":
        message = "is not possible yet: no staging node writes checkpoints, so nothing would ever be free; take folded"
    elif free == "received" and transport in ("auto", "shm"):
        message = (
            f"cannot be with staging.transport: {transport}, since in shared memory a staging node reads a step where "
            "it lies until it is folded; take auto (over tcp that is received), or transport: tcp"
        )
    return [config.problem(("variables", "*", "free"), message)] if message else []


def _of_steps(config: Config, name: str) -> list[Problem]:
    """Look whether steps are selected by what is known of them before the run has ended."""
    text = config.variables[name].select.get("step")
    start, stop, _ = indices(text) if text is not None else (None, None, 1)
    if min(start or 0, stop or 0) >= 0:
        return []
    message = f"{text!r} counts from the end of the run, which nobody knows; steps are counted from 0"
    return [config.problem(("variables", name, "select", "step"), message)]


def _of_meetings(config: Config) -> list[Problem]:
    """Look whether operators of several variables ever get a step that has all of them."""
    problems = []
    for name, operator in config.folds.items():
        if operator.sources or not operator.needs_all:
            continue
        texts = {wanted: config.rules(wanted).select.get("step", ":") for wanted in operator.inputs}
        steps = [Range("step", *indices(text)) for text in texts.values()]
        # What selections have in common comes again after this many steps; of more, only the run will tell.
        again = max(one.start or 0 for one in steps) + prod({one.step for one in steps})
        if again < MEETINGS and not steps_taken(steps, True, 0, again):
            said = ", ".join(f"{wanted} of {text}" for wanted, text in texts.items())
            message = f"no step has all that it takes ({said}); select steps that meet"
            problems.append(config.problem(("operators", name), message))
    return problems


def _of_codec(config: Config, name: str) -> list[Problem]:
    """Look whether a variable's codec is installed, and has the tolerance that it needs."""
    own, problems = config.rules(name), []

    def at(key: str, message: str) -> Problem:
        entry = name if name in config.variables and key in config.variables[name].model_fields_set else "*"
        return config.problem(("variables", entry, key), message)

    if module := missing(own.codec):
        problems.append(
            at("codec", f'{own.codec} needs {module}, which is not installed; pip install "insitu[codecs]"')
        )
    if own.codec == "zfp" and own.tolerance is None:
        problems.append(at("codec", f'zfp needs to know how far "{name}" may be off; add tolerance: 1e-6 or what fits'))
    if own.codec != "zfp" and own.tolerance is not None:
        problems.append(
            at("tolerance", f'has no meaning for "{name}" with codec {own.codec}; leave it out, or take zfp')
        )
    return problems


def _unknown_operators(document: Document) -> list[Problem]:
    """Find outputs of operators that are not there."""
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
    """Return the operators that an output names; a recording names variables, which only the run knows."""
    of = output.get("of") if isinstance(output, dict) and output.get("to") != "record" else None
    names = of if isinstance(of, list) else [of]
    return [name for name in names if isinstance(name, str)]


def _expected_of_all(document: Document) -> list[Problem]:
    """Find what is expected of all variables at once."""
    variables = document.data.get("variables")
    rules = variables.get("*") if isinstance(variables, dict) else None
    if not isinstance(rules, dict) or rules.get("expect") is None:
        return []
    message = "what a variable is going to be stands under its own name, as no two need be alike"
    return [document.places.problem(("variables", "*", "expect"), message)]


def _buffers_of_one(document: Document) -> list[Problem]:
    """Find keys of the buffer at a single variable."""
    variables = document.data.get("variables")
    entries = variables.items() if isinstance(variables, dict) else ()
    return [
        document.places.problem(
            ("variables", name, key), f'{key} stands only under "*", because one buffer serves all variables of a rank'
        )
        for name, entry in entries
        if name != "*" and isinstance(entry, dict)
        for key in entry
        if key in Buffering.model_fields
    ]
