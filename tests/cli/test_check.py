# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from textwrap import dedent

import pytest

from tests.cli.calls import insitu

CONFIG = """\
    run: melt
    simulation:
      command: [python, melt.py, --title, a b]
      ranks: 2
      launcher: mpiexec
    staging: {nodes: 2}
    operators:
      speed: {use: "tests.config.folds:Count", of: v, over: [step, space], window: 10}
      mean: {use: "tests.config.folds:Count", of: [u, v], over: step}
      series: {use: "tests.config.folds:Count", of: u, over: space}
    outputs: [{of: [speed, mean]}]
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("melt.yaml").write_text(dedent(CONFIG))
    return Path("melt.yaml")


def test_a_good_configuration_says_what_it_will_do(path: Path) -> None:
    result = insitu("check", path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == dedent("""\
        melt.yaml: ok
          run        melt, in runs/melt
          simulation python melt.py --title 'a b'
                     2 ranks, launcher mpiexec
          staging    2 nodes of 2 GiB, cluster local
          network    interface auto, security auto
          buffer     256 MiB per rank, when full: wait 1 min at most, then drop
          operator   speed: tests.config.folds:Count of v over step and space, one
                     result per 10 steps
          operator   mean: tests.config.folds:Count of u, v over step, one result per
                     run
          operator   series: tests.config.folds:Count of u over space, one result per
                     step, not stored

        Not known before the run: v, u. To see results and their size here, say under
        variables: what it is going to be, as v: {expect: {dims: [y, x], shape: [64, 64]}}
    """)


def test_what_is_expected_gives_results_and_sizes_in_80_columns(path: Path) -> None:
    text = "{expect: {dims: [y, x], shape: [40, 30], units: a_long_unit_that_does_not_end_for_quite_a_while}}"
    result = insitu("check", path, "--set", f"variables={{u: {text}, v: {text}}}")
    assert result.exit_code == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "speed.count" in result.stdout
    assert "Not known" not in result.stdout


def test_states_that_do_not_fit_are_a_mistake_of_the_configuration(path: Path) -> None:
    u = "{expect: {dims: [y, x], shape: [4000, 3000]}}"
    sets = (f"variables={{u: {u}}}", 'operators={"large": {use: moments, of: u, over: step}}', "staging.memory=100 MB")
    result = insitu("check", path, *(each for one in (*sets, "outputs=[]") for each in ("--set", one)))
    assert result.exit_code == 2
    assert result.stderr.startswith("--set: staging.memory: states will take 183 MiB on each node, most of it those of")


def test_the_reference_fits() -> None:
    result = insitu("check", Path(__file__).parents[2] / "configs" / "reference.yaml")
    assert (result.exit_code, result.stderr) == (0, "")


def test_what_leaves_a_rank_is_said_where_it_is_not_all(path: Path) -> None:
    rules = "{u: {select: {y: '0:8', x: '::4'}, dtype: float32, codec: zfp, tolerance: 1.0e-3}}"
    result = insitu("check", path, "--set", f"variables={rules}")
    assert result.exit_code == 0, result.stderr
    assert [line.strip() for line in result.stdout.splitlines() if line.startswith("  variable")] == [
        "variable   u: y 0:8, x ::4, as float32, codec zfp within 0.001"
    ]


def test_nothing_is_left_behind(path: Path) -> None:
    insitu("check", path)
    assert list(Path().iterdir()) == [path]


def test_an_override_is_checked_too(path: Path) -> None:
    result = insitu("check", path, "--set", "staging.nodes=3", "--set", "simulation.launcher=external")
    assert result.exit_code == 0
    assert "3 nodes" in result.stdout
    assert "started by hand" in result.stdout


def test_mistakes_go_to_stderr_all_at_once_with_status_2(path: Path) -> None:
    path.write_text(path.read_text().replace("ranks: 2", "ranks: many").replace("nodes: 2", "node: 2"))
    result = insitu("check", path, "--set", "operators.speed.window=0")
    assert (result.exit_code, result.stdout) == (2, "")
    known = "cluster, nodes, transport, memory, retain, racks"
    assert result.stderr == dedent(f"""\
        melt.yaml:4: simulation.ranks: expected an integer of at least 1, got "many"
        melt.yaml:6: staging.node: unknown key; did you mean "nodes"? (known are {known})
        --set: operators.speed.window: expected an integer of at least 1, "run" or a time such as "0.5 time", got 0
    """)


def test_a_missing_file_is_a_sentence(path: Path) -> None:
    result = insitu("check", "none.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "none.yaml: there is no such file; give the path of a YAML file\n"
