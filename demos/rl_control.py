# SPDX-License-Identifier: Apache-2.0
"""Reinforcement learning on a running simulation: Lorenz's system learns to rest where it would never stay.

    python demos/rl_control.py [FOLDER] [--steps N] [--episode K]

Runs ``configs/lorenz.yaml`` as an environment of Gymnasium, in which the action is a bounded force and the reward the
nearness to the state of rest at negative x. Trains soft actor-critic (stable-baselines3) for some thousand steps, then
lets the system go with the learnt control and without any from the same beginnings, prints what each was rewarded, and
draws both to FOLDER/rl_control.png. Below two minutes. Needs the extras ``rl`` and ``demos``.
"""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, cast

import gymnasium
import matplotlib as mpl
import numpy as np
import torch
from gymnasium.wrappers import RescaleAction, TimeLimit, TransformObservation
from lorenz import FORCE, REST
from lorenz import State as Array
from stable_baselines3 import SAC
from stable_baselines3.common.monitor import Monitor

from adapters.gymnasium_env import SteeredEnv

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "lorenz.yaml"
#: Nearness to rest: 0 there, about -1 anywhere else on the attractor.
REWARD = "-sqrt({}) / 20".format(
    " + ".join(f"(state.mean[{k}] - {rest!r}) ** 2" for k, rest in enumerate(REST.tolist()))
)
#: Beginnings on which nobody has learnt.
SEEDS = (101, 102, 103, 104)
#: A state nearer to rest than this is where it is wanted.
NEAR = 2.0


class Run(NamedTuple):
    """An episode under a policy."""

    times: Array
    states: Array
    forces: Array
    rewards: Array
    #: How long it took to begin it.
    begun_s: float


def main() -> int:
    options = parse_options()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    begin = time.monotonic()
    settings = {"simulation.directory": ROOT}
    # A force holds for 0.1 units of time: twice as far for each wait, and still seven times in once round.
    made = SteeredEnv(CONFIG, act="force", observe="state.mean", reward=REWARD, steps=2, settings=settings)
    with closing(made) as simulation:
        print(f"the run has begun in {time.monotonic() - begin:.1f} s", flush=True)
        begin = time.monotonic()
        env = Monitor(scaled(TimeLimit(simulation, options.episode)))
        model = learnt(env, options.steps)
        step_ms = 1e3 * (time.monotonic() - begin) / options.steps
        print(f"{options.steps} steps of learning, {step_ms:.0f} ms each", flush=True)
        whole = scaled(TimeLimit(simulation, 2 * options.episode))
        free = [episode(whole, seed, lambda seen: np.zeros(1, np.float32)) for seed in SEEDS]
        kept = [episode(whole, seed, lambda seen: model.predict(seen, deterministic=True)[0]) for seed in SEEDS]
    print(
        f"reward of a step: {reward(free):.2f} without control, {reward(kept):.2f} with it\n"
        f"within {NEAR:g} of the wanted state: {near(free):.0%} of the time without control, {near(kept):.0%} with it\n"
        f"(the second halves of {len(SEEDS)} runs that nobody has learnt on; each began in "
        f"{1e3 * np.mean([run.begun_s for run in free + kept]):.0f} ms)"
    )
    draw(np.array(env.get_episode_rewards()) / options.episode, free, kept, options.folder / "rl_control.png")
    print(options.folder / "rl_control.png")
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default="runs", type=Path, help="where the picture goes")
    parser.add_argument("--steps", type=int, default=2500, help="steps of learning (default: %(default)s)")
    parser.add_argument("--episode", type=int, default=60, help="steps of an episode (default: %(default)s)")
    options = parser.parse_args()
    if min(options.steps, options.episode) < 1:
        parser.error("--steps and --episode are at least 1")
    return options


def learnt(env: gymnasium.Env, steps: int) -> SAC:
    """Learn for so many steps.

    The weight of the entropy is given, not learnt: that takes longer than all of this, and disturbs until then.
    """
    model = SAC(
        "MlpPolicy", env, seed=0, learning_rate=2e-3, batch_size=128, gamma=0.95, tau=0.02, ent_coef=0.01,
        learning_starts=min(300, steps // 2), policy_kwargs={"net_arch": [64, 64]},
    )  # fmt: skip
    return model.learn(steps)


def scaled(env: gymnasium.Env) -> gymnasium.Env:
    """Have actions and observations of about one, as a network takes them."""
    bound = np.full(3, np.inf, np.float32)
    box = gymnasium.spaces.Box(-bound, bound, dtype=np.float32)
    seen = TransformObservation(env, lambda state: ((state - REST) / 10).astype(np.float32), box)
    return RescaleAction(seen, np.float64(-1), np.float64(1))


def episode(env: gymnasium.Env, seed: int, policy: Callable[[Array], Array]) -> Run:
    """Let the simulation go for an episode from a beginning."""
    simulation = cast(SteeredEnv, env.unwrapped)
    clock = time.monotonic()
    seen, _ = env.reset(seed=seed)
    begun_s = time.monotonic() - clock
    begin = simulation.standing.time
    times, states, forces, rewards, over = [0.0], [10 * seen + REST], [0.0], [], False
    while not over:
        action = policy(seen)
        seen, rewarded, _, over, _ = env.step(action)
        times.append(simulation.standing.time - begin)
        states.append(10 * seen + REST)
        forces.append(FORCE * float(action[0]))
        rewards.append(rewarded)
    return Run(np.array(times), np.array(states), np.array(forces), np.array(rewards), begun_s)


def reward(runs: list[Run]) -> float:
    """Return the mean reward of a step in the second halves."""
    return float(np.mean([run.rewards[len(run.rewards) // 2 :] for run in runs]))


def near(runs: list[Run]) -> float:
    """Return the share of the second halves in which the state is where it is wanted."""
    states = np.concatenate([run.states[len(run.states) // 2 :] for run in runs])
    return float((np.linalg.norm(states - REST, axis=1) < NEAR).mean())


def draw(rewards: np.ndarray, free: list[Run], kept: list[Run], path: Path) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
    for axis, runs, title in ((axes[0, 0], free, "without control"), (axes[0, 1], kept, "with the learnt control")):
        for run in runs:
            axis.plot(run.times, run.states[:, 0], lw=0.9)
        axis.axhline(REST[0], color="k", ls=":", lw=1)
        axis.set(title=title, xlabel="time", ylabel="x", ylim=(-22, 22))
    for run in kept:
        axes[1, 1].plot(run.times, run.forces, lw=0.9)
    axes[1, 1].set(title="force of the learnt control", xlabel="time", ylabel="force", ylim=(-1.1 * FORCE, 1.1 * FORCE))
    axes[1, 0].plot(np.arange(1, len(rewards) + 1), rewards)
    axes[1, 0].set(title="learning", xlabel="episode", ylabel="mean reward")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
