# SPDX-License-Identifier: Apache-2.0
"""Reinforcement learning on a running simulation: Lorenz's system learns to rest where it would never stay.

    python demos/rl_control.py [FOLDER] [--steps N] [--episode K]

Runs ``configs/lorenz.yaml`` as an environment of Gymnasium, in which the action is a bounded force and the reward the
nearness to the state of rest at negative x. Trains soft actor-critic (stable-baselines3) for some thousand steps, then
lets the system go with the learnt control and without any from the same beginnings, and draws both to
FOLDER/rl_control.png. Below three minutes. Needs the extras ``rl`` and ``demos``.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
import matplotlib as mpl
import numpy as np
import torch
from gymnasium.wrappers import RescaleAction, TimeLimit, TransformObservation
from lorenz import FORCE, REST, State
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default="runs", type=Path, help="where the picture goes")
    parser.add_argument("--steps", type=int, default=5000, help="steps of learning (default: %(default)s)")
    parser.add_argument("--episode", type=int, default=100, help="steps of an episode (default: %(default)s)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    begin = time.monotonic()
    settings = {"simulation.directory": ROOT}
    simulation = SteeredEnv(CONFIG, act="force", observe="state.mean", reward=REWARD, settings=settings)
    started_s = time.monotonic() - begin
    env = Monitor(scaled(TimeLimit(simulation, options.episode)))
    model = SAC(
        "MlpPolicy", env, seed=0, learning_rate=1e-3, batch_size=128, gamma=0.97,
        learning_starts=min(500, options.steps // 2), policy_kwargs={"net_arch": [64, 64]},
    )  # fmt: skip
    begin = time.monotonic()
    model.learn(options.steps)
    learnt_s = time.monotonic() - begin
    whole = scaled(TimeLimit(simulation, 4 * options.episode))
    free = [episode(whole, seed, lambda seen: np.zeros(1, np.float32)) for seed in SEEDS]
    kept = [episode(whole, seed, lambda seen: model.predict(seen, deterministic=True)[0]) for seed in SEEDS]
    begin = time.monotonic()
    for _ in range(20):
        simulation.reset()
    restarted_s = (time.monotonic() - begin) / 20
    env.close()
    print(
        f"an episode begins in {1e3 * restarted_s:.0f} ms, the first one took {started_s:.1f} s\n"
        f"{options.steps} steps of learning in {learnt_s:.0f} s, {1e3 * learnt_s / options.steps:.0f} ms each\n"
        f"within {NEAR:g} of the wanted state: {near(free):.0%} of the time without control, {near(kept):.0%} with it "
        f"(from the second half of {len(SEEDS)} runs that nobody has learnt on)"
    )
    draw(np.array(env.get_episode_rewards()) / options.episode, free, kept, options.folder / "rl_control.png")
    print(options.folder / "rl_control.png")
    return 0


def scaled(env: gymnasium.Env) -> gymnasium.Env:
    """Have actions and observations of about one, as a network takes them."""
    box = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    seen = TransformObservation(env, lambda state: ((state - REST) / 10).astype(np.float32), box)
    return RescaleAction(seen, np.float32(-1), np.float32(1))


Run = tuple[np.ndarray, np.ndarray, np.ndarray]


def episode(env: gymnasium.Env, seed: int, policy: Callable[[State], State]) -> Run:
    """Return the times, states and forces of an episode under a policy."""
    simulation = env.unwrapped
    seen, _ = env.reset(seed=seed)
    begin = simulation.standing.time
    times, states, forces, over = [0.0], [10 * seen + REST], [0.0], False
    while not over:
        action = policy(seen)
        seen, _, _, over, _ = env.step(action)
        times.append(simulation.standing.time - begin)
        states.append(10 * seen + REST)
        forces.append(FORCE * float(action[0]))
    return np.array(times), np.array(states), np.array(forces)


def near(runs: list[Run]) -> float:
    """Return the share of the second halves in which the state is where it is wanted."""
    states = np.concatenate([states[len(states) // 2 :] for _, states, _ in runs])
    return float((np.linalg.norm(states - REST, axis=1) < NEAR).mean())


def draw(rewards: np.ndarray, free: list[Run], kept: list[Run], path: Path) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
    for axis, runs, title in ((axes[0, 0], free, "without control"), (axes[0, 1], kept, "with the learnt control")):
        for times, states, _ in runs:
            axis.plot(times, states[:, 0], lw=0.9)
        axis.axhline(REST[0], color="k", ls=":", lw=1)
        axis.set(title=title, xlabel="time", ylabel="x", ylim=(-22, 22))
    for times, _, forces in kept:
        axes[1, 1].plot(times, forces, lw=0.9)
    axes[1, 1].set(title="force of the learnt control", xlabel="time", ylabel="force", ylim=(-1.1 * FORCE, 1.1 * FORCE))
    axes[1, 0].plot(np.arange(1, len(rewards) + 1), rewards)
    axes[1, 0].set(title="learning", xlabel="episode", ylabel="mean reward")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
