# SPDX-License-Identifier: Apache-2.0
"""What `use:` may name: a static table of dotted names, imported only when asked for.

Rules: the core names plugins here and imports none of them at start, so a missing or broken plugin costs only those
who use it; a name is a string in this table, never an entry point (those of an editable install go stale unseen);
whatever is not in the table is reached by ``module:Class``, with no registration.
"""

import difflib
import importlib
import inspect
from typing import TypeVar

from insitu.errors import ConfigError
from insitu.learner import Learner
from insitu.operator import Operator
from insitu.steering.controller import Controller

#: name -> ``module:Class``. Adding an operator is one line here.
OPERATORS: dict[str, str] = {
    "autocorrelation": "analytics.autocorrelation:Autocorrelation",
    "covariance": "analytics.covariance:Covariance",
    "events": "analytics.events:Events",
    "dmd": "analytics.dmd:DMD",
    "diffusion_map": "analytics.diffusion_map:DiffusionMap",
    "exceedance": "analytics.exceedance:Exceedance",
    "extremes": "analytics.extremes:Extremes",
    "histogram": "analytics.histogram:Histogram",
    "kmeans": "analytics.kmeans:KMeans",
    "moments": "analytics.moments:Moments",
    "msd": "analytics.msd:Msd",
    "pca": "analytics.pca:PCA",
    "profile": "analytics.profile:Profile",
    "quantiles": "analytics.quantiles:Quantiles",
    "rdf": "analytics.rdf:Rdf",
    "sklearn": "analytics.sklearn:Sklearn",
    "sobol": "analytics.sobol:Sobol",
    "spectrum": "analytics.spectrum:Spectrum",
}

#: The same of learners, which stand among the operators in the YAML and are no folds.
LEARNERS: dict[str, str] = {
    "partial_fit": "analytics.partial_fit:PartialFit",
    "predict": "analytics.predict:Predict",
    "river": "analytics.river:River",
    "train": "analytics.train:Train",
}

#: The same of controllers, which look at results and answer with actions.
CONTROLLERS: dict[str, str] = {
    "change_point": "analytics.change_point:ChangePoint",
    "converged": "analytics.converged:Converged",
    "ensemble_kalman": "analytics.ensemble_kalman:EnsembleKalman",
    "pid": "analytics.pid:PID",
    "propose": "analytics.propose:Propose",
}

_Plugin = TypeVar("_Plugin", Operator, Learner, Controller)


def load(use: str) -> type[Operator]:
    """Return the operator class that `use` names: a name of the table, or ``module:Class``.

    Raises `ConfigError` with a sentence for a name that is in no table, a module that cannot be imported, and what is
    no operator. Costs the import of that one module.

    >>> load("momens")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    insitu.errors.ConfigError: no operator is called "momens"; did you mean "moments"? (known are ...)
    """
    return _checked(OPERATORS.get(use, use), find(use), Operator, "operator", ", or a function of a window")  # type: ignore[type-abstract]


def load_learner(use: str) -> type[Learner]:
    """Return the learner class that `use` names, as `load` does."""
    return _checked(LEARNERS.get(use, use), find(use), Learner, "learner")  # type: ignore[type-abstract]


def is_learner(use: str) -> bool:
    """Whether `use` names a learner; raises `ConfigError` as `load` does."""
    found = find(use)
    return isinstance(found, type) and issubclass(found, Learner)


def load_controller(use: str) -> type[Controller]:
    """Return the controller class that `use` names, as `load` does.

    >>> load_controller("my_lab")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    insitu.errors.ConfigError: no controller is called "my_lab" (known are ...any module:Class)
    """
    found = _find(use, CONTROLLERS, "controller", "module:Class")
    return _checked(CONTROLLERS.get(use, use), found, Controller, "controller")  # type: ignore[type-abstract]


def is_function(use: str) -> bool:
    """Whether `use` names a plain function of a window; raises `ConfigError` as `load` does."""
    found = find(use)
    return callable(found) and not isinstance(found, type)


def find(use: str) -> object:
    """Return what `use` names, a class or a function; raises `ConfigError` where it is not found."""
    return _find(use, OPERATORS | LEARNERS, "operator", "module:Class or function")


def use_of(plugin: type[Operator] | type[Learner] | type[Controller]) -> str:
    """Return what the `load` of its kind takes for this class: its name in the table, or ``module:Class``."""
    target = f"{plugin.__module__}:{plugin.__qualname__}"
    return next((name for name, known in (OPERATORS | LEARNERS | CONTROLLERS).items() if known == target), target)


def _find(use: str, table: dict[str, str], kind: str, others: str) -> object:
    module, separator, name = table.get(use, use).partition(":")
    if not separator:
        near = difflib.get_close_matches(use, table, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        known = ", ".join([*sorted(table), ""])
        raise ConfigError(f'no {kind} is called "{use}"{hint} (known are {known}and any {others})')
    if not module or not name:
        raise ConfigError(f'"{use}" is no module:Class, as my_lab.ops:Vorticity would be')
    return _attribute(module, name)


def _attribute(module: str, name: str) -> object:
    try:
        found: object = importlib.import_module(module)
    except Exception as error:  # a plugin's module may raise anything; the sentence carries it to its author
        raise ConfigError(
            f"the module {module} cannot be imported: {type(error).__name__}: {error} "
            "(is it installed, or its folder on PYTHONPATH?)"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"the module {module} has no {name}")
        found = getattr(found, part)
    return found


def _checked(target: str, found: object, base: type[_Plugin], kind: str, other: str = "") -> type[_Plugin]:
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(f"{target} is no {kind}: expected a subclass of {base.__module__}.{base.__name__}{other}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise ConfigError(f"{target} is no complete {kind}: it does not define {missing}")
    return found
