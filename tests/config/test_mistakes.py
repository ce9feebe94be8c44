# SPDX-License-Identifier: Apache-2.0
"""Every mistake is named by file, line, path and value, with what was expected; and all of them at once."""

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from insitu import config
from insitu.config.document import read
from insitu.errors import ConfigError
from tests.config.yaml_files import GOOD, load, mistakes

COUNT = '"tests.config.folds:Count"'

KNOWN_TOP = (
    "(known are run, directory, simulation, staging, network, variables, operators, steering, outputs, dashboard, "
    "traces)"
)
RUN_NAME = "expected a name of letters, digits, _, - and . that begins with none of the last two, got "
OPERATOR_NAME = "expected a name of letters, digits and _ that does not begin with a digit, got "
RANKS = "expected an integer of at least 1, got "
WINDOW = 'expected an integer of at least 1, "run" or a time such as "0.5 time", got '
RANGE = 'expected a list of 2 numbers or "auto", got '
CLUSTER = 'expected local, an address such as "tcp://host:8786", or the path of a scheduler file (.json), got '
SIZE = 'expected a size such as "256 MiB" or "2 GB", or a positive number of bytes, got '
INDICES = 'expected indices such as "0:256", "-8:" or "::4", in quotes, with a stride of at least 1, got '
TIME = 'expected a duration such as "500 ms" or "2 min", or a number of seconds, got '

#: What is replaced in GOOD and by what; the line of the mistake, its path, and its text or the beginning of it.
CASES = [
    ("run: melt", "run: a b", 1, "run", RUN_NAME + '"a b"'),
    ("run: melt", "run: ..", 1, "run", RUN_NAME + '".."'),
    ("run: melt", "run: 2024-01-02", 1, "run", 'expected a string, got "2024-01-02"'),
    ("run: melt", "run:", 1, "run", "expected a string, got nothing"),
    ("run: melt", "", None, "run", "is missing; expected a string"),
    ("run: melt", "run: melt\nrum: melt", 2, "rum", 'unknown key; did you mean "run"? ' + KNOWN_TOP),
    ("run: melt", "run: melt\nzzz: 1", 2, "zzz", "unknown key " + KNOWN_TOP),
    ("ranks: 2", "ranks: many", 2, "simulation.ranks", RANKS + '"many"'),
    ("ranks: 2", "ranks: 0", 2, "simulation.ranks", RANKS + "0"),
    ("ranks: 2", "ranks: 2.5", 2, "simulation.ranks", RANKS + "2.5"),
    ("ranks: 2", "ranks: yes", 2, "simulation.ranks", RANKS + "true"),
    ("ranks: 2", "ranks: [2]", 2, "simulation.ranks", RANKS + "[2]"),
    ("ranks: 2", "ranks: {}", 2, "simulation.ranks", RANKS + "an empty mapping"),
    ("ranks: 2", "rank: 2", 2, "simulation.rank", 'unknown key; did you mean "ranks"? (known are command, ranks'),
    ("mpiexec", "srun", 2, "simulation.launcher", 'expected "local", "mpiexec" or "external", got "srun"'),
    ("command: [python, melt.py], ", "", 2, "simulation", "command is missing or empty: the launcher mpiexec has"),
    ("[python, melt.py]", "[python, [a]]", 2, "simulation.command.1", 'expected a string, got ["a"]'),
    ("[python, melt.py]", "{a: b}", 2, "simulation.command", "expected a string or a list of strings, got a mapping"),
    ("[python, melt.py]", "it's", 2, "simulation.command", "expected a command whose quotes are closed (No closing"),
    ("ranks: 2", "environment: {A: }", 2, "simulation.environment.A", "expected a string, got nothing"),
    ("ranks: 2", "environment: [A]", 2, "simulation.environment", 'expected a mapping, got ["A"]'),
    ("operators:", "staging: {nodes: x}\noperators:", 3, "staging.nodes", RANKS + '"x"'),
    ("operators:", "staging: {cluster: locl}\noperators:", 3, "staging.cluster", CLUSTER + '"locl"'),
    ("operators:", "staging: {cluster: http://a:1/}\noperators:", 3, "staging.cluster", CLUSTER),
    ("operators:", "staging: {memory: 2 GiBs}\noperators:", 3, "staging.memory", SIZE + '"2 GiBs"'),
    ("operators:", "staging: {memory: -1}\noperators:", 3, "staging.memory", SIZE + "-1"),
    ("operators:", "staging: {memory: .inf}\noperators:", 3, "staging.memory", SIZE + "Infinity"),
    ("operators:", "staging: {memory: yes}\noperators:", 3, "staging.memory", SIZE + "true"),
    ("operators:", "staging:\noperators:", 3, "staging", "expected a mapping, got nothing"),
    (
        "operators:",
        "variables: {u: {}}\noperators:",
        3,
        "variables.u",
        "no operator folds this variable (folded are v)",
    ),
    (
        "operators:",
        "variables: {v: {slect: {}}}\noperators:",
        3,
        "variables.v.slect",
        'unknown key; did you mean "select"?',
    ),
    (
        "operators:",
        "variables: {v: {buffer: 1}}\noperators:",
        3,
        "variables.v.buffer",
        'buffer stands only under "*", because',
    ),
    ("operators:", "variables: {v: {select: {x: 10:30}}}\noperators:", 3, "variables.v.select.x", INDICES + "630"),
    ("operators:", "variables: {v: {select: {x: '::0'}}}\noperators:", 3, "variables.v.select.x", INDICES + '"::0"'),
    ("operators:", "variables: {v: {select: {x: '3'}}}\noperators:", 3, "variables.v.select.x", INDICES + '"3"'),
    ("operators:", "variables: {v: {select: 3}}\noperators:", 3, "variables.v.select", "expected a mapping, got 3"),
    ("operators:", "variables: {'*': {policy: newest}}\noperators:", 3, "variables.*.policy", 'expected "block", '),
    (
        "operators:",
        "variables: {'*': {policy: every}}\noperators:",
        3,
        "variables.*.policy",
        "every needs to know which; add every: 10",
    ),
    (
        "operators:",
        "variables: {'*': {every: 5}}\noperators:",
        3,
        "variables.*.every",
        "has no meaning with policy block",
    ),
    (
        "operators:",
        "variables: {'*': {policy: spill, then: spill}}\noperators:",
        3,
        "variables.*.then",
        "spill has no meaning with policy spill, which goes to the disk at once; take drop or abort",
    ),
    (
        "operators:",
        "variables: {'*': {free: durable}}\noperators:",
        3,
        "variables.*.free",
        "is not possible yet: no staging node writes checkpoints, so nothing would ever be free; take folded",
    ),
    (
        "operators:",
        "variables: {'*': {free: received}}\noperators:",
        3,
        "variables.*.free",
        "cannot be with staging.transport: auto, since in shared memory a staging node reads a step where it lies",
    ),
    ("operators:", "variables: {v: {free: folded}}\noperators:", 3, "variables.v.free", 'free stands only under "*"'),
    (
        "operators:",
        "variables: {T: {select: {step: '-8:'}}}\noperators:",
        3,
        "variables.T.select.step",
        "'-8:' counts from the end of the run, which nobody knows; steps are counted from 0",
    ),
    ("operators:", "variables: {'*': {max_wait: -1 s}}\noperators:", 3, "variables.*.max_wait", TIME + '"-1 s"'),
    ("operators:", "variables: {'*': {max_wait: .inf}}\noperators:", 3, "variables.*.max_wait", TIME + "Infinity"),
    (
        "operators:",
        "outputs: [{to: hdf5}]\noperators:",
        3,
        "outputs.0.to",
        'expected "zarr", "record" or "console", got',
    ),
    (
        "operators:",
        "outputs: [{of: 3}]\noperators:",
        3,
        "outputs.0.of",
        "expected a string or a list of strings (at least 1)",
    ),
    (
        "operators:",
        "outputs: [{of: [spead]}]\noperators:",
        3,
        "outputs.0.of",
        'no operator is called "spead"; did you mean',
    ),
    ("operators:", "traces: {to: 'localhost:4318'}\noperators:", 3, "traces.to", "expected the name of a file such as"),
    (
        "operators:",
        "traces: {to: 'grpc://h:4317'}\noperators:",
        3,
        "traces.to",
        "expected an address of OTLP over HTTP",
    ),
    ("operators:", "traces: {to: a/b.jsonl}\noperators:", 3, "traces.to", "expected the name of a file such as"),
    (
        "operators:",
        "traces: {to: /no/such/t.jsonl}\noperators:",
        3,
        "traces.to",
        "there is no folder /no/such; make it",
    ),
    ("operators:", "traces: {every: 0}\noperators:", 3, "traces.every", RANKS + "0"),
    ("operators:", "operators: 3\nx:", 3, "operators", "expected a mapping that is not empty, got 3"),
    (
        "operators:",
        "operators:\n  s: {use: sobol, of: v, over: member, parameters: 2, until: 0.05}",
        4,
        "operators.s.until",
        "expected a mapping with interval, got 0.05",
    ),
    ("window: 10", "window: 0", 4, "operators.speed.window", WINDOW + "0"),
    ("window: 10", "window: ruin", 4, "operators.speed.window", WINDOW + '"ruin"'),
    ("window: 10", "bins: many", 4, "operators.speed.bins", RANKS + '"many"'),
    ("window: 10", "binz: 3", 4, "operators.speed.binz", 'unknown key; did you mean "bins"? (known are use, of, over,'),
    ("window: 10", "range: [0, x]", 4, "operators.speed.range", RANGE + '[0, "x"]'),
    ("window: 10", "range: [0]", 4, "operators.speed.range", RANGE + "[0]"),
    ("[step, space]", "time", 4, "operators.speed.over", "expected "),
    ("[step, space]", "space", 4, "operators.speed", "window: 10 has no meaning with over: space, which gives one"),
    ("of: v, ", "", 4, "operators.speed.of", "is missing; expected "),
    ("of: v", "of: []", 4, "operators.speed.of", "expected "),
    (COUNT, "7", 4, "operators.speed.use", "expected the name of an operator, or module:Class, got 7"),
    (COUNT, "momens", 4, "operators.speed.use", 'no operator is called "momens"; did you mean "moments"? (known are'),
    (COUNT, '"no_such:X"', 4, "operators.speed.use", "the module no_such cannot be imported: ModuleNotFoundError:"),
    (f"use: {COUNT}, ", "", 4, "operators.speed.use", "is missing; expected the name of an operator, or module:Class"),
    ("  speed:", "  speed up:", 4, "operators.speed up", OPERATOR_NAME + '"speed up"'),
    ("  speed:", "  2nd:\n  speed:", 4, "operators.2nd", OPERATOR_NAME + '"2nd"'),
    ("  speed:", "  1st:", 4, "operators.1st", OPERATOR_NAME + '"1st"'),
    (
        "  speed:",
        "  a: 3\n  speed:",
        4,
        "operators.a",
        "expected a mapping with the key use and the operator's own keys",
    ),
]


@pytest.mark.parametrize(("old", "new", "line", "path", "text"), CASES)
def test_a_mistake_is_one_line_with_place_and_cure(
    tmp_path: Path, old: str, new: str, line: int | None, path: str, text: str
) -> None:
    assert old in GOOD
    found = [each for each in mistakes(tmp_path, GOOD.replace(old, new, 1)) if f": {path}: " in each]
    assert len(found) == 1
    place = f"melt.yaml:{line}" if line else "melt.yaml"  # what is missing at the top has no line
    assert found[0].startswith(f"{place}: {path}: {text}")


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = f"""\
    run: melt
    simulation:
      command: [python, melt.py]
      ranks: many
      launchr: local
    operators:
      speed: {{use: {COUNT}, of: v, over: step, bins: 0, window: 0}}
      other: {{use: nothing, of: v}}
      speed: {{use: {COUNT}, of: v, over: step, bins: none}}
    outputs:
      - of: [speed, spead]
        to: paper
    """
    found = mistakes(tmp_path, text, ["staging.nodes=0"])
    assert [line.split(": ")[:2] for line in found] == [
        ["melt.yaml:4", "simulation.ranks"],
        ["melt.yaml:5", "simulation.launchr"],
        ["melt.yaml:8", "operators.other.use"],
        ["melt.yaml:9", "operators.speed"],
        ["melt.yaml:9", "operators.speed.bins"],
        ["melt.yaml:11", "outputs.0.of"],
        ["melt.yaml:12", "outputs.0.to"],
        ["--set", "staging.nodes"],
    ]
    assert "appears twice, first on line 7; rename or remove one" in found[3]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("nodes", '--set: expected path=value, such as staging.nodes=2, got "nodes"'),
        ("=2", '--set: expected path=value, such as staging.nodes=2, got "=2"'),
        ("staging..nodes=2", '--set: expected path=value, such as staging.nodes=2, got "staging..nodes=2"'),
        ("staging.nodes=0", "--set: staging.nodes: " + RANKS + "0"),
        ("staging.nodes=", "--set: staging.nodes: " + RANKS + "nothing"),
        ("stagin.nodes=1", '--set: stagin: unknown key; did you mean "staging"? ' + KNOWN_TOP),
        ("run.name=x", '--set: run: has no key name that could be set, it is "melt"'),
        ("simulation.command.7=x", "--set: simulation.command: has no key 7 that could be set, it is"),
        ("operators.speed.bins=[1", "--set: operators.speed.bins: is not YAML: while parsing a flow sequence"),
        ("operators.speed.binz=1", '--set: operators.speed.binz: unknown key; did you mean "bins"?'),
        ("operators={}", "--set: operators: expected a mapping that is not empty, got an empty mapping"),
    ],
)
def test_a_wrong_override_is_told_apart_from_the_file(tmp_path: Path, override: str, line: str) -> None:
    found = mistakes(tmp_path, GOOD, [override])
    assert len(found) == 1
    assert found[0].startswith(line)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: there is no such file; give the path of a YAML file$"):
        config.load(tmp_path / "none.yaml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory$"):
        config.load(tmp_path)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "field.bin").write_bytes(b"run: \xff\xfe")
    with pytest.raises(ConfigError, match=r"field\.bin: is not text in UTF-8: invalid start byte at byte 5$"):
        config.load(tmp_path / "field.bin")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "melt.yaml: is empty; expected at least the keys run, simulation and operators"),
        ("# nothing\n", "melt.yaml: is empty; expected at least the keys run, simulation and operators"),
        ("- run\n- simulation\n", 'melt.yaml: expected a mapping of keys to values, got ["run", "simulation"]'),
        ("just words", 'melt.yaml: expected a mapping of keys to values, got "just words"'),
        ("run: [a\nb: c", "melt.yaml:2: is not YAML: while parsing a flow sequence, expected ',' or ']', but got ':'"),
        ("run: a\n\tb: c", "melt.yaml:2: is not YAML: while scanning for the next token, found character '\\t'"),
        ("run: a\n---\nrun: b", "melt.yaml:2: is not YAML: expected a single document in the stream"),
        ("run: a\nb: *c", "melt.yaml:2: is not YAML: found undefined alias 'c'"),
        ("run: &a [*a]", "melt.yaml:1: is not YAML: an alias contains itself"),
        ("run: a\n? [x]\n: b", "melt.yaml:2: is not YAML: a key must be a plain word"),
        ("run: a\nx: !!python/name:os.system", "melt.yaml:2: is not YAML: could not determine a constructor"),
        ("run: a\nx: 2024-13-45", 'melt.yaml:2: is not YAML: "2024-13-45" is no timestamp; put quotes'),
        ("run: a\n<<: 3", "melt.yaml:2: is not YAML: << takes a mapping or a list of them"),
        ("run: \x07", "melt.yaml: is not YAML: the character '\\x07' cannot stand in it"),
        ("x: " + "[" * 5000, "melt.yaml: is nested too deeply"),
    ],
)
def test_what_is_no_configuration_at_all(tmp_path: Path, text: str, line: str) -> None:
    found = mistakes(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(line)


def test_a_merged_key_is_placed_where_it_stands(tmp_path: Path) -> None:
    text = GOOD + f"  a: &a {{use: {COUNT}, of: u, over: step,\n    bins: 0}}\n  b: {{<<: *a, of: v}}\n"
    assert [line.split(": ")[:2] for line in mistakes(tmp_path, text)] == [
        ["melt.yaml:6", "operators.a.bins"],
        ["melt.yaml:6", "operators.b.bins"],
    ]


WORDS = st.sampled_from(
    [
        "run",
        "simulation",
        "operators",
        "of",
        "*",
        "- ",
        "  ",
        "\n",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "<<",
        "0x",
        "~",
        "'",
        "!!int ",
        "!!bool ",
        "!!timestamp ",
        "!!float ",
        "!!set ",
        "!!omap ",
        "!!binary ",
        "2024-01-99",
        "1e9",
    ]
)


@settings(max_examples=120)
@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=30).map("".join)))
def test_any_text_is_a_document_or_has_a_problem(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    document = read(str(path))
    assert document.problems or isinstance(document.data, dict)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["use", "of", "*", "a", "nodes"]), inner)
    ),
    max_leaves=6,
)
PATHS = [
    "run",
    "simulation",
    "simulation.command",
    "staging",
    "staging.memory",
    "variables",
    "variables.*",
    "operators",
]
PATHS += [
    "operators.speed",
    "operators.speed.use",
    "operators.speed.of",
    "operators.speed.range",
    "outputs",
    "outputs.of",
]


@settings(max_examples=120)
@given(st.sampled_from(PATHS), VALUES)
def test_any_value_of_any_key_loads_or_is_a_mistake(
    tmp_path_factory: pytest.TempPathFactory, path: str, value: object
) -> None:
    text = f"{path}={yaml.safe_dump(value, default_flow_style=True).removesuffix('...' + chr(10))}"
    with contextlib.suppress(ConfigError):
        load(tmp_path_factory.getbasetemp(), GOOD, [text])


def test_an_operator_whose_variables_are_never_in_the_same_step_is_named(tmp_path: Path) -> None:
    text = """\
        run: melt
        simulation: {command: [python, melt.py]}
        variables: {u: {select: {step: "::2"}}, v: {select: {step: "1::2"}}}
        operators:
          both: {use: covariance, of: [u, v], over: step, window: 10}
    """
    assert mistakes(tmp_path, text) == [
        "melt.yaml:5: operators.both: no step has all that it takes (u of ::2, v of 1::2); select steps that meet"
    ]
    load(tmp_path, text.replace('"1::2"', '"1::3"'))
