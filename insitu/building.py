# SPDX-License-Identifier: Apache-2.0
"""A run put together in Python: the same configuration as a YAML file's, by the same checks."""

import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from insitu import registry
from insitu.config import Config, build
from insitu.config.function import Function
from insitu.controller.progress import Progress, new_progress
from insitu.controller.run import Run
from insitu.dashboard.notebook import mistakes_html, pipeline_html
from insitu.errors import ConfigError, RunError
from insitu.learner import Learner
from insitu.operator import Operator

#: What is said of the simulation where nothing is: its ranks are started by hand.
_BY_HAND = {"launcher": "external"}


class Pipeline:
    """A configuration that grows: each method returns a new one, and leaves this one as it is.

    `run` names the run; the other keywords are sections of the YAML, as plain data: ``simulation``, ``staging``,
    ``network``, ``variables``, ``directory`` and so on. Without a ``simulation`` its ranks are started by hand, with
    INSITU_CONTACT set to the contact file that the run prints. Mistakes raise `ConfigError` when `config` is asked for,
    at the latest by `run`.

    >>> from analytics.moments import Moments
    >>> pipeline = Pipeline("heat", simulation={"command": ["python", "heat.py"]})
    >>> pipeline = pipeline.add("stats", Moments(of="u", over="step", window=100)).output("stats")
    >>> print(pipeline.to_yaml(), end="")
    run: heat
    simulation:
      command:
      - python
      - heat.py
    operators:
      stats:
        use: moments
        of:
        - u
        over:
        - step
        window: 100
    outputs:
    - of: stats
      to: zarr
    """

    def __init__(self, run: str = "pipeline", **sections: Any) -> None:
        self._data: dict[str, Any] = {"run": run, "simulation": dict(_BY_HAND), **deepcopy(sections)}

    @property
    def config(self) -> Config:
        """The configuration; raises `ConfigError` with all mistakes."""
        return build(deepcopy(self._data))

    def add(self, name: str, operator: Operator | Learner | Callable[..., Any], **keys: Any) -> "Pipeline":
        """Add an operator, a learner or a function of a window with the `keys` of its entry (``of``, ``window``, ...).

        Staging nodes are processes of their own, which import what they call: so both must be importable by name. One
        of the program that is run itself, or inside of another function, is not, and raises `ConfigError`.
        """
        if name in self._data.get("operators", {}):
            raise ConfigError(f"operators.{name} is there already; choose another name")
        if isinstance(operator, Operator | Learner):
            if keys:
                raise ConfigError(
                    f"operators.{name}: an operator has its keys already, got {', '.join(keys)} beside it"
                )
            # Of a learner all: what tells its models apart is the default of each.
            brief = isinstance(operator, Operator)
            entry = operator.model_dump(mode="json", exclude_defaults=brief, exclude={"use"})
            use = operator.use if isinstance(operator, Function) else registry.use_of(type(operator))
            what: object = None if isinstance(operator, Function) else type(operator)
        else:
            entry, what = keys, operator
            use = f"{getattr(operator, '__module__', '?')}:{getattr(operator, '__qualname__', operator)}"
        if what is not None:
            _require_importable(name, use, what)
        return self._with("operators", {**self._data.get("operators", {}), name: {"use": use, **entry}})

    def output(self, of: str | Sequence[str] = "*", to: str = "zarr") -> "Pipeline":
        """Add an entry of ``outputs``: where results of these operators go, or which variables are recorded."""
        names = of if isinstance(of, str) else list(of)
        return self._with("outputs", [*self._data.get("outputs", []), {"of": names, "to": to}])

    def variable(self, name: str, **rules: Any) -> "Pipeline":
        """Say what of a variable is sent, or what it is going to be: the keys of ``variables: NAME:``."""
        return self._with("variables", {**self._data.get("variables", {}), name: rules})

    def to_yaml(self) -> str:
        """Return the YAML of the same configuration: what was said, without the defaults. Loads to an equal one."""
        self.config  # noqa: B018 - so that no YAML is printed that would not load
        return yaml.safe_dump(_plain(self._data), sort_keys=False, allow_unicode=True)

    def run(self, *, force: bool = False, progress: Progress | None = None) -> Path:
        """Run it, and return the run's directory; from the main thread, as ``insitu run`` does.

        `force` replaces the directory of an earlier run of this name. Raises `RunError` with the reasons where the run
        failed or was interrupted; what was folded is kept then, too.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RunError("A run takes Ctrl-C, which only the main thread can; call run() there.")
        config = self.config
        before = signal.getsignal(signal.SIGINT)
        shown = progress or new_progress()
        try:
            run = Run(config, shown, force=force)
            outcome = run.execute()
        finally:
            shown.close()
            signal.signal(signal.SIGINT, before)
        if outcome.status != "done":
            raise RunError(f"{outcome.status}: {'; '.join(outcome.reasons) or run.directory.path}")
        return run.directory.path

    def _repr_html_(self) -> str:
        """Show the pipeline in a notebook as a graph; what is wrong with it, where something is."""
        try:
            return pipeline_html(self.config)
        except ConfigError as error:
            return mistakes_html(error)

    def _with(self, key: str, value: Any) -> "Pipeline":
        other = Pipeline()
        other._data = {**deepcopy(self._data), key: deepcopy(value)}
        return other


def _require_importable(name: str, use: str, what: object) -> None:
    if use.startswith("__main__:"):
        raise ConfigError(
            f"operators.{name}: {use.partition(':')[2]} is defined in the program that runs, which staging nodes "
            "cannot import; move it to a module of its own"
        )
    if registry.find(use) is not what:
        raise ConfigError(
            f"operators.{name}: {use} is another object than the one that was given; give it a name there"
        )


def _plain(value: Any) -> Any:
    """Return data as YAML holds it: lists for tuples."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
