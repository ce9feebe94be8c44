# SPDX-License-Identifier: Apache-2.0
"""What `use:` may name: a static table of dotted names, imported only when asked for.

Rules: the core names plugins here and imports none of them at start, so a missing or broken plugin costs only those
who use it; a name is a string in this table, never an entry point (those of an editable install go stale unseen);
whatever is not in the table is reached by ``module:Class``, with no registration.
"""

import difflib
import importlib
import inspect

from insitu.errors import ConfigError
from insitu.operator import Operator

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


def load(use: str) -> type[Operator]:
    """Return the operator class that `use` names: a name of the table, or ``module:Class``.

    Raises `ConfigError` with a sentence for a name that is in no table, a module that cannot be imported, and what is
    no operator. Costs the import of that one module.

    >>> load("momens")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    insitu.errors.ConfigError: no operator is called "momens"; did you mean "moments"? (known are ...)
    """
    return _operator(OPERATORS.get(use, use), find(use))


def is_function(use: str) -> bool:
    """Whether `use` names a plain function of a window; raises `ConfigError` as `load` does."""
    found = find(use)
    return callable(found) and not isinstance(found, type)


def find(use: str) -> object:
    """Return what `use` names, an operator class or a function; raises `ConfigError` where it is not found."""
    target = OPERATORS.get(use, use)
    module, separator, name = target.partition(":")
    if not separator:
        raise ConfigError(
            f'no operator is called "{use}"{_nearest(use)} (known are {_known()}, and any module:Class or function)'
        )
    if not module or not name:
        raise ConfigError(f'"{use}" is no module:Class, as my_lab.ops:Vorticity would be')
    return _attribute(module, name)


def use_of(operator: type[Operator]) -> str:
    """Return what `load` takes for this class: its name in the table, or ``module:Class``."""
    target = f"{operator.__module__}:{operator.__qualname__}"
    return next((name for name, known in OPERATORS.items() if known == target), target)


def _known() -> str:
    return ", ".join(sorted(OPERATORS))


def _nearest(use: str) -> str:
    near = difflib.get_close_matches(use, OPERATORS, n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


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


def _operator(target: str, found: object) -> type[Operator]:
    if not (isinstance(found, type) and issubclass(found, Operator)):
        raise ConfigError(
            f"{target} is no operator: expected a subclass of insitu.operator.Operator, or a function of a window"
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise ConfigError(f"{target} is no complete operator: it does not define {missing}")
    return found
