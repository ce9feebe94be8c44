# SPDX-License-Identifier: Apache-2.0
"""Any steered run as an environment of Gymnasium: what the simulation declares is acted on, results are observed.

    env = SteeredEnv("lorenz.yaml", act="force", observe="state.mean", reward="-abs(state.mean[0] + 8)", steps=10)

The run is one of the environment's own, of that configuration, in a process of its own. It stands still but in `step`:
there the action is applied, the simulation publishes `steps` steps, and all ranks stand still again. The observation is
what the operators have made of the steps up to there. So nothing depends on how fast anything is, and the same seeds
and actions give the same numbers where the simulation does.

**Episodes.** A simulation that declares an action ``restart`` with an argument ``seed`` is restarted by it, in
milliseconds:

    sim.action("restart", begin_anew, "begin anew", seed=0)

Of any other, each episode is a run of its own, which takes seconds. There the seed is handed over by `seed_option`, as
the last words of the simulation's command: ``--seed 7``.

**Windows.** An operator of which each result covers one step, or a number of steps that divides `steps`, has a result
that ends where the simulation stands still; of others none does, which is an error. With a ``restart`` no window mixes
two episodes then. `outputs: [{of: NAME, to: console}]` in the configuration has results sent here and not stored, for
nothing then waits for the disk.

**Vectors.** One environment is one simulation: Gymnasium's own `SyncVectorEnv` and `AsyncVectorEnv` take several.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
import yaml

from adapters.gymnasium_spaces import Actions, observed_space
from insitu.console import Standing
from insitu.errors import ConfigError, RunError
from insitu.model import Array
from insitu.steering.actions import Receipt
from insitu.steering.parameters import ParameterSpec
from insitu.steering.reading import Reading
from insitu.stepping import SimulationEnded, Stepped

#: What an environment makes of results: an expression of the rules (docs/rules.md), or a function of the observations
#: by name, as arrays.
Judge = str | Callable[[Mapping[str, Array]], SupportsFloat]

#: The action by which a simulation begins anew.
RESTART = "restart"


class SteeredEnv(gymnasium.Env[Any, Any]):
    """The run of `config`, steered step by step.

    `act` names the parameter that an action sets. Its space is a `Box` between the declared bounds, of shape (1,) or
    the parameter's own; `Discrete` for a bool, for choices, and for a whole number with bounds. Several names, of
    floats and arrays, make one flat `Box` in their order; where one of them is discrete, a `Dict`.

    `observe` names a result as ``operator.result``, or the operator where it has only one. Its space is an unbounded
    `Box` of the result's shape, of shape (1,) for a number. Several names make a `Dict`.

    `reward` and `terminated` judge each step: expressions over all results of the operators that are observed, whose
    history (``ewm``, ``previous``) begins anew with each episode; or functions of the observations by name. `settings`
    are those of ``insitu run --set``. What runs leave behind is kept in `directory`, else thrown away. `timeout` is how
    many seconds a step may take.

    A simulation that ends or dies is `truncated`, with the last observation, no reward, and the ``reason`` in the info.
    Else that says how many ``steps`` were published since the episode began; `standing` has the author's own step and
    physical time, and `receipt` what became of the last action.

    Raises `ConfigError` for names that the run does not have, and for a parameter without bounds; `RunError` where the
    run refuses an action, or no result ends where the simulation stands still.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as Gymnasium has it

    def __init__(
        self,
        config: str | Path,
        act: str | Sequence[str],
        observe: str | Sequence[str],
        reward: Judge,
        *,
        terminated: Judge | None = None,
        steps: int = 1,
        seed_option: str | None = None,
        settings: Mapping[str, Any] | None = None,
        directory: str | Path | None = None,
        timeout: float = 60.0,
    ) -> None:
        self._config = Path(config)
        self._names = [act] if isinstance(act, str) else list(act)
        self._observed = [observe] if isinstance(observe, str) else list(observe)
        self._alone = isinstance(observe, str)
        self._steps = steps
        self._seed_option = seed_option
        self._settings = dict(settings or {})
        self._timeout = timeout
        self._temporary = tempfile.TemporaryDirectory(prefix="insitu-env-") if directory is None else None
        self._folder = Path(self._temporary.name if self._temporary is not None else str(directory))
        self._folder.mkdir(parents=True, exist_ok=True)
        self._runs = 0
        self._run: Stepped | None = None
        self._fresh = False
        #: What became of the last action: among all else the step after which it was applied.
        self.receipt: Receipt | None = None
        try:
            self._learn(self._begin(None), reward, terminated, alone=isinstance(act, str))
        except BaseException:
            self.close()
            raise

    def _learn(self, run: Stepped, reward: Judge, terminated: Judge | None, *, alone: bool) -> None:
        """Find out from a first run what can be acted on and observed."""
        self._specs = [_spec(name, run) for name in self._names]
        self._sources = {name: _source(name, run) for name in self._observed}
        self._actions = Actions(self._specs, alone=alone)
        self._seen = self._observe(run)
        self.action_space = self._actions.space
        self.observation_space = observed_space(self._seen, alone=self._alone)
        values = list(run.console.parameters)
        self._judges = [
            Reading(judge, run.newest, values) if isinstance(judge, str) else judge for judge in (reward, terminated)
        ]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode: restart the simulation where it can be, else run a new one. Parameters have their defaults.

        Without a `seed`, the simulation gets one of the environment's own generator. There are no `options`.
        """
        super().reset(seed=seed)
        number = int(self.np_random.integers(2**31 - 1)) if seed is None else seed
        run = self._run
        reusable = run is not None and (RESTART in run.console.actions or (self._fresh and self._seed_option is None))
        if run is None or not reusable:
            run = self._begin(number)
        try:
            self._restart(run, number)
        except SimulationEnded:  # it has died since the last episode
            run = self._begin(number)
            self._restart(run, number)
        self._fresh = False
        for judge in self._judges:
            if isinstance(judge, Reading):
                judge.clear()
        self._take_in(run)
        self._published = 0
        return self._observation, {"steps": 0}

    def _restart(self, run: Stepped, seed: int) -> None:
        if RESTART in run.console.actions:
            defaults = {spec.name: spec.default for spec in self._specs}
            seeded = {"seed": seed} if "seed" in run.console.actions[RESTART] else {}
            run.advance(("set", defaults), (RESTART, seeded))

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Apply the action, let the simulation publish `steps` steps, and judge what the results say."""
        run = self._run
        if run is None:
            raise RunError("There is no simulation: it has ended, or the environment is closed. Call reset().")
        self._fresh = False
        try:
            (self.receipt,) = run.advance(("set", self._actions.values(action)))
        except SimulationEnded as error:
            self._drop()
            return self._observation, 0.0, False, True, {"reason": str(error)}
        self._published += self._steps
        self._take_in(run)
        reward, terminated = (self._judged(judge, run) for judge in self._judges)
        return self._observation, float(reward), bool(terminated), False, {"steps": self._published}

    @property
    def standing(self) -> Standing:
        """Where the simulation stands still. Raises `RunError` where there is none."""
        if self._run is None:
            raise RunError("There is no simulation: it has ended, or the environment is closed. Call reset().")
        return self._run.standing

    def close(self) -> None:
        """End the run; nothing is left of it but what was to be kept. May be called twice."""
        self._drop()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _drop(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.close()

    def _begin(self, seed: int | None) -> Stepped:
        """Start a run, up to where it first stands still."""
        self._drop()
        self._runs += 1
        settings = {"run": f"episodes-{self._runs}", **self._settings}
        if self._seed_option is not None and seed is not None:
            command = yaml.safe_load(self._config.read_text())["simulation"]["command"]
            words = command.split() if isinstance(command, str) else [str(word) for word in command]
            settings["simulation.command"] = yaml.safe_dump([*words, self._seed_option, str(seed)], width=1 << 20)
        operators = list(dict.fromkeys(name.partition(".")[0] for name in self._observed))
        self._run = Stepped(
            self._config, settings, self._folder, operators=operators, steps=self._steps, timeout=self._timeout
        )
        self._fresh = True
        return self._run

    def _observe(self, run: Stepped) -> dict[str, Array]:
        newest = run.newest
        return {
            name: np.atleast_1d(newest[operator].arrays[result]) for name, (operator, result) in self._sources.items()
        }

    @property
    def _observation(self) -> Any:
        return self._seen[self._observed[0]] if self._alone else dict(self._seen)

    def _take_in(self, run: Stepped) -> None:
        self._seen = self._observe(run)
        for judge in self._judges:
            if isinstance(judge, Reading):
                for results in run.results.values():
                    for result in results:
                        judge.add(result)

    def _judged(self, judge: Reading | Callable[[Mapping[str, Array]], SupportsFloat] | None, run: Stepped) -> Any:
        if not isinstance(judge, Reading):
            return judge is not None and judge(self._seen)
        try:
            return judge(run.console.values)
        except (ArithmeticError, ValueError, TypeError) as error:
            raise RunError(f"'{judge.text}' has no value at step {run.standing.step}: {error}.") from error


def _spec(name: str, run: Stepped) -> ParameterSpec:
    declared = run.console.parameters
    if name not in declared:
        raise ConfigError(f"act: the simulation has no parameter '{name}' (it has {', '.join(declared) or 'none'})")
    return declared[name]


def _source(name: str, run: Stepped) -> tuple[str, str]:
    """Return the operator and the result that ``operator.result`` names."""
    operator, _, result = name.partition(".")
    arrays = run.newest[operator].arrays
    if not result and len(arrays) == 1:
        return operator, next(iter(arrays))
    if result not in arrays:
        raise ConfigError(f"'{name}': operator '{operator}' yields {', '.join(arrays)}; observe one of them.")
    return operator, result
