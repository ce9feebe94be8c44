# SPDX-License-Identifier: Apache-2.0
"""Runs as environments of Gymnasium, beside the same simulations computed here."""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from insitu.errors import ConfigError, RunError

gymnasium = pytest.importorskip("gymnasium")

from gymnasium import spaces  # noqa: E402 - only where it is installed
from gymnasium.utils.env_checker import check_env  # noqa: E402
from gymnasium.vector import SyncVectorEnv  # noqa: E402

from adapters import gymnasium_env as module  # noqa: E402
from adapters.gymnasium_env import SteeredEnv  # noqa: E402
from adapters.gymnasium_spaces import Actions, observed_space  # noqa: E402
from insitu.steering.parameters import ParameterSpec  # noqa: E402

ROOT = Path(__file__).parents[2]
WALK = ROOT / "tests" / "adapters" / "programs" / "walk.py"

pytestmark = [pytest.mark.leaks_per_module, pytest.mark.in_order, pytest.mark.timeout(240)]


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.syspath_prepend(ROOT / "demos")


def lorenz() -> SteeredEnv:
    return SteeredEnv(
        ROOT / "configs" / "lorenz.yaml",
        act="force",
        observe="state.mean",
        reward="state.mean[0].previous - state.mean[0]",
        terminated="step < 0 and state.mean[0] > 0",
        settings={
            "simulation.directory": ROOT,
            "operators.rare": "{use: moments, of: state, over: step, window: 1000, orders: 1}",
            "outputs": "[{of: [state, rare], to: console}]",
        },
    )


@pytest.fixture(scope="module")
def pair() -> Iterator[Any]:
    """Two simulations in Gymnasium's own vector: all tests of those that can be restarted look at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        with closing(SyncVectorEnv([lorenz, lorenz])) as envs:
            yield envs


def test_a_vector_of_simulations_is_the_same_as_computing_them_here(pair: Any) -> None:
    from lorenz import advance, drawn

    forces = np.random.default_rng(0).uniform(-10, 10, (10, 2, 1))
    states = [drawn(3), drawn(4)]  # a vector gives its members seeds that count on
    seen, _ = pair.reset(seed=3)
    before = None
    for n, force in enumerate([np.zeros((2, 1)), *forces]):
        if n:
            before = seen
            seen, rewards, terminated, truncated, info = pair.step(force)
            np.testing.assert_array_equal(rewards, before[:, 0] - seen[:, 0])
            assert not terminated.any()
            assert not truncated.any()
            assert info["steps"].tolist() == [n, n]
        for member in range(2):
            for _ in range(5):
                states[member] = advance(states[member], force[member, 0], 0.01)
        np.testing.assert_array_equal(seen, states, err_msg=f"step {n}")


def test_the_action_is_applied_where_the_simulation_stood_still(pair: Any) -> None:
    env = pair.envs[0]
    env.reset(seed=1)
    stood = env.standing
    env.step(np.array([99.0], np.float32))  # beyond the bound
    assert env.receipt.describe().endswith(f"applied after step {stood.step}, force 0.0 -> 10.0")
    assert env.receipt.boundary == stood.boundary
    assert env.standing.boundary == stood.boundary + 1


def test_it_passes_gymnasiums_own_check(pair: Any) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_env(pair.envs[1], skip_render_check=True)
    # That a space is unbounded, or not normalised, is no mistake: Gymnasium has wrappers for it.
    assert all("Box" in str(each.message) for each in said), [str(each.message) for each in said]


def test_what_has_no_result_where_the_simulation_stands_still_is_named(pair: Any) -> None:
    run = pair.envs[0]._run
    run._timeout = 2.0
    run.console.follow("rare")
    with pytest.raises(RunError, match=r"operator 'rare' has no result that ends at step \d+, .* divide the 1 steps"):
        run.advance()
    with pytest.raises(ConfigError, match=r"no parameter 'forse' \(it has force\)"):
        module._spec("forse", run)
    with pytest.raises(ConfigError, match=r"'state.maen': operator 'state' yields .*mean; observe one of them"):
        module._source("state.maen", run)
    run.console.follow("rara")
    with pytest.raises(RunError, match="operator 'rara': no operator is called 'rara'; there are state, rare"):
        run.console.next_result("rara", 10.0)


def test_the_demo_learns_on_it_and_draws_what_it_was_rewarded(
    pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A few steps of learning, on the simulation that is here already; the demo is the last one to use it."""
    for library in ("stable_baselines3", "matplotlib"):
        pytest.importorskip(library)
    demo = importlib.import_module("rl_control")
    env = pair.envs[1]  # the other one waits for what never comes

    def learn_here(config: Path, act: str, observe: str, reward: str, steps: int, settings: object) -> SteeredEnv:
        assert (config, [act], [observe]) == (ROOT / "configs" / "lorenz.yaml", env._names, env._observed)
        env._steps = env._run._steps = steps
        env._learn(env._run, reward, None, alone=True)
        return env

    monkeypatch.setattr(demo, "SteeredEnv", learn_here)
    monkeypatch.setattr(demo, "SEEDS", demo.SEEDS[:1])
    monkeypatch.setattr("sys.argv", ["rl_control.py", str(tmp_path), "--steps", "12", "--episode", "4"])
    runs: list[Any] = []
    monkeypatch.setattr(
        demo,
        "draw",
        lambda rewards, free, kept, path, draw=demo.draw: (
            runs.extend([rewards, *free, *kept]),
            draw(rewards, free, kept, path),
        ),
    )
    assert demo.main() == 0
    rewards, *episodes = runs
    assert rewards.shape == (3,)
    for run in episodes:
        np.testing.assert_allclose(run.times, 0.1 * np.arange(9), atol=1e-9)
        away = np.linalg.norm(run.states[1:] - demo.REST, axis=1)
        np.testing.assert_allclose(run.rewards, -away / 20, rtol=1e-5)
    said = capsys.readouterr().out
    assert f"reward of a step: {demo.reward(episodes[:1]):.2f} without control" in said
    assert (tmp_path / "rl_control.png").stat().st_size > 10_000


def walk(tmp_path: Path, *options: object, **keys: Any) -> SteeredEnv:
    config = {
        "run": "walk",
        "simulation": {"command": ["python", str(WALK), *map(str, options)]},
        "operators": {
            "place": {"use": "moments", "of": "place", "over": "step", "window": 5, "orders": 1},
            "half": {"use": "moments", "of": "half", "over": "step", "window": 1, "orders": 1},
        },
    }
    path = tmp_path / "walk.yaml"
    path.write_text(yaml.safe_dump(config))
    said: dict[str, Any] = {"act": ["push", "far"], "observe": ["place.max", "half.mean"], "reward": lambda seen: 1.0}
    return SteeredEnv(path, **{**said, "steps": 5, "directory": tmp_path / "runs", **keys})


def test_a_simulation_without_a_restart_is_run_anew_and_its_death_is_truncated(tmp_path: Path) -> None:
    rewards: dict[str, Any] = {"reward": "place.max - place.min", "terminated": lambda seen: seen["place.max"][0] > 1e6}
    others = set(psutil.Process().children(recursive=True))
    with closing(walk(tmp_path, "--die", 17, seed_option="--seed", **rewards)) as env:
        assert isinstance(env.action_space, spaces.Dict)
        assert isinstance(env.observation_space, spaces.Dict)
        seen, info = env.reset(seed=7)
        begin = float(np.random.default_rng(7).integers(100))
        assert (seen["place.max"], info) == ([begin], {"steps": 0})
        assert env.observation_space.contains(seen)
        seen, reward, terminated, truncated, info = env.step({"push": 2, "far": np.array([2.0])})
        # Five steps of 2 each: the operators saw begin + 2 to begin + 10, the last half is that of the last.
        assert (seen["place.max"].tolist(), seen["half.mean"].tolist()) == ([begin + 10], [(begin + 10) / 2, 0.0])
        assert (reward, terminated, truncated, info) == (8.0, False, False, {"steps": 5})
        assert (env.standing.step, env.standing.time) == (18, 4.5)
        seen, *rest = env.step({"push": 1, "far": np.array([2.0])})
        assert (seen["place.max"].tolist(), rest) == ([begin + 10], [0.0, False, False, {"steps": 10}])
        children = set(psutil.Process().children(recursive=True)) - others
        last, reward, terminated, truncated, info = env.step({"push": 0, "far": np.array([1.0])})
        assert {name: array.tolist() for name, array in last.items()} == {k: v.tolist() for k, v in seen.items()}
        assert (reward, terminated, truncated) == (0.0, False, True)
        assert "died" in info["reason"] or "failed" in info["reason"], info
        with pytest.raises(RunError, match="There is no simulation: it has ended"):
            env.step({"push": 0, "far": np.array([1.0])})
    env.close()  # again
    _, alive = psutil.wait_procs(list(children), timeout=60)
    assert children
    assert not alive
    assert (tmp_path / "runs" / "episodes-2" / "actions.jsonl").exists()


def test_spaces_are_those_of_the_parameters() -> None:
    mode = ParameterSpec.of("mode", "a", choices=["a", "b", "c"])
    on, count = ParameterSpec.of("on", True), ParameterSpec.of("count", 3, minimum=1, maximum=5)
    heat = ParameterSpec.of("heat", 0.5, minimum=0.0, maximum=0.1 + 0.5)
    inlets = ParameterSpec.of("inlets", [1.0, 2.0], minimum=-1.0, maximum=3.0)
    for spec, space, action, value in (
        (mode, spaces.Discrete(3), 2, "c"),
        (on, spaces.Discrete(2), 0, False),
        (count, spaces.Discrete(5, start=1), 4, 4),
        (heat, spaces.Box(0.0, 0.6, (1,), np.float64), np.array([0.6], np.float32), 0.6),
    ):
        actions = Actions([spec], alone=True)
        assert actions.space == space
        assert actions.values(action) == {spec.name: value}
        assert spec.check(actions.values(action)[spec.name]) == value
    flat = Actions([heat, inlets], alone=False)
    assert flat.space == spaces.Box(np.array([0.0, -1, -1]), np.array([0.6, 3, 3]), dtype=np.float64)
    values = flat.values(np.array([0.25, 0.0, 1.0]))
    assert (values["heat"], np.asarray(values["inlets"]).tolist()) == (0.25, [0.0, 1.0])
    assert isinstance(Actions([heat, on], alone=False).space, spaces.Dict)
    for spec, why in (
        (ParameterSpec.of("free", 1.0, minimum=0.0), "parameter 'free' has no maximum"),
        (ParameterSpec.of("name", "x"), "parameter 'name' is a str"),
    ):
        with pytest.raises(ConfigError, match=why):
            Actions([spec], alone=True)
    assert observed_space({"n": np.zeros(2, np.int64)}, alone=True).contains(np.array([1, -2]))
