# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from insitu import config
from insitu.config import Config
from tests.config.folds import Count
from tests.config.yaml_files import GOOD, load


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert loaded.directory == "runs"
    assert loaded.staging.cluster == "local"
    assert loaded.staging.nodes == 1
    assert loaded.staging.memory == 2 * 2**30
    assert loaded.buffering.policy == "block"
    assert loaded.buffering.buffer == 256 * 2**20
    assert loaded.buffering.max_wait == 60.0
    assert loaded.buffering.then == "drop"
    assert [(output.of, output.to) for output in loaded.outputs] == [(("*",), "zarr")]


def test_operators_are_built_in_the_order_of_the_file(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD + '  a: {use: "tests.config.folds:Count", of: [u, v], over: step, range: [0, 1e3]}\n')
    assert list(loaded.operators) == ["speed", "a"]
    assert loaded.operators["speed"] == Count(of=("v",), over=("step", "space"), window=10)
    assert loaded.operators["a"] == Count(of=("u", "v"), over=("step",), range=(0.0, 1000.0))


def test_a_configuration_is_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load(tmp_path, GOOD).run = "other"


@pytest.mark.parametrize(
    "command",
    [
        "[python, melt.py, --seed, 007, --real, 1.10, --flag, yes, --nothing, ~, '']",
        """python melt.py --seed 007 --real 1.10 --flag yes --nothing ~ ''""",
    ],
)
def test_the_words_of_a_command_stay_as_they_are_written(tmp_path: Path, command: str) -> None:
    words = ["python", "melt.py", "--seed", "007", "--real", "1.10", "--flag", "yes", "--nothing", "~", ""]
    loaded = load(tmp_path, GOOD.replace("[python, melt.py]", command if command[0] == "[" else f'"{command}"'))
    assert list(loaded.simulation.command) == words


def test_the_environment_is_text_as_it_is_written(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD.replace("ranks: 2", "environment: {THREADS: 08, FLAG: on, EMPTY: ''}"))
    assert loaded.simulation.environment == {"THREADS": "08", "FLAG": "on", "EMPTY": ""}


def test_a_word_of_the_command_may_be_an_alias_of_a_number(tmp_path: Path) -> None:
    text = GOOD.replace("{command: [python, melt.py], ranks: 2", "{ranks: &n 2, command: [python, melt.py, *n]")
    loaded = load(tmp_path, text)
    assert loaded.simulation.ranks == 2
    assert loaded.simulation.command == ("python", "melt.py", "2")


def test_a_mapping_is_merged_under_its_own_keys(tmp_path: Path) -> None:
    more = """\
      a: &a {use: "tests.config.folds:Count", of: u, over: step, bins: 3}
      b: {<<: *a, of: v}
    """
    loaded = load(tmp_path, GOOD + more.replace("    a:", "a:").replace("      b:", "  b:"))
    assert loaded.operators["b"] == Count(of=("v",), over=("step",), bins=3)


def test_no_command_is_needed_where_a_person_starts_the_simulation(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD.replace("command: [python, melt.py], ", "").replace("mpiexec", "external"))
    assert loaded.simulation.command == ()


@pytest.mark.parametrize("cluster", ["local", "tcp://node17:8786", "tls://[::1]:8786", "scheduler.json", "/lustre/s"])
def test_a_cluster_is_local_an_address_or_a_file(tmp_path: Path, cluster: str) -> None:
    assert load(tmp_path, GOOD, [f"staging.cluster='{cluster}'"]).staging.cluster == cluster


def test_overrides_are_yaml_and_the_last_one_counts(tmp_path: Path) -> None:
    overrides = [
        "staging.nodes=2",
        "staging.nodes=3",
        "variables.*.max_wait=500 ms",
        "simulation.command.1=007",
        "simulation.environment.SEED=08",
        "operators.speed={use: 'tests.config.folds:Count', of: [u, v], over: step}",
        "operators.speed.bins=5",
        "operators.other.use=tests.config.folds:Count",
        "operators.other.of=p",
        "operators.other.over=space",
    ]
    loaded = load(tmp_path, GOOD, overrides)
    assert loaded.staging.nodes == 3
    assert loaded.buffering.max_wait == 0.5
    assert loaded.simulation.command == ("python", "007")
    assert loaded.simulation.environment == {"SEED": "08"}
    assert loaded.operators["speed"] == Count(of=("u", "v"), over=("step",), bins=5)
    assert loaded.operators["other"] == Count(of=("p",), over=("space",))


def test_the_resolved_configuration_loads_to_the_same(tmp_path: Path) -> None:
    more = '  s: {use: "tests.config.folds:Count", of: u, over: space}\n'
    loaded = load(tmp_path, GOOD + more, ["variables.*.buffer=1.5 MiB"])
    again = load(tmp_path, loaded.resolved_yaml())
    assert again.resolved() == loaded.resolved()
    assert again.operators == loaded.operators
    assert yaml.safe_load(loaded.resolved_yaml()) == loaded.resolved()
    assert loaded.resolved()["operators"]["speed"]["bins"] == 8, "defaults are written out"


def test_the_hash_tells_configurations_apart_not_their_form(tmp_path: Path) -> None:
    def hash_of(text: str, *overrides: str) -> str:
        return config.config_hash(load(tmp_path, text, overrides))

    same = (
        GOOD.replace("ranks: 2, launcher: mpiexec", "launcher: mpiexec, ranks: 0x2") + "staging: {memory: 2048 MiB}\n"
    )
    assert hash_of(GOOD) == hash_of(same)
    assert hash_of(GOOD) != hash_of(GOOD, "operators.speed.bins=9")
    assert hash_of(GOOD) != hash_of(GOOD, "staging.nodes=2")
    assert len(hash_of(GOOD)) == 16


def test_the_hash_does_not_tell_a_default_from_a_key_left_out(tmp_path: Path) -> None:
    def hash_of(keys: str) -> str:
        more = f'  s: {{use: "tests.config.folds:Count", of: u, over: space{keys}}}\n'
        return config.config_hash(load(tmp_path, GOOD + more))

    assert hash_of("") == hash_of(", bins: 8") != hash_of(", bins: 9")


def test_a_mistake_found_later_still_knows_its_line(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    problem = loaded.problem(("operators", "speed", "of"), "nobody publishes v")
    assert str(problem) == f"{tmp_path}/melt.yaml:4: operators.speed.of: nobody publishes v"


def test_the_model_can_be_built_without_a_file() -> None:
    built = Config.model_validate(
        {"run": "x", "simulation": {"launcher": "external"}, "operators": {"c": Count(of=("u",), over=("step",))}}
    )
    assert built.operators["c"].inputs == ("u",)
    assert str(built.problem(("run",), "is odd")) == "run: is odd"


def test_steering_has_waits_and_choices(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).steering.max_wait == 1.0
    steering = load(
        tmp_path, GOOD + "steering: {max_wait: 200 ms, max_pause: 5 min, in_doubt: revert, agree: mpi}\n"
    ).steering
    assert (steering.max_wait, steering.max_pause, steering.in_doubt, steering.agree) == (0.2, 300.0, "revert", "mpi")
