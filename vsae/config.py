"""The one place where names become classes: a pair as JSON, and JSON as a pair.

A module is described by its class's registered name and constructor arguments, read back from
attributes of the same names. Names are looked up in a closed table, never imported from a path: a
settings file cannot run code. Extend the table with :func:`register`.
"""

import math

from torch import Tensor, nn

from vsae.errors import CheckpointError, ConfigError
from vsae.registered import register_all

_TABLE: dict[str, tuple[type, tuple[str, ...]]] = {}


def register(cls: type, *arguments: str) -> type:
    """Make ``cls`` saveable: ``cls(**{a: getattr(module, a) for a in arguments})`` rebuilds it.

    Args:
        cls: A module class, or a value class such as ``Graph``.
        arguments: Constructor arguments that are also attributes: numbers, strings, tuples,
            tensors, graphs or modules.

    Raises:
        ConfigError: ``config.duplicate`` if the name is taken by another class.
    """
    if _TABLE.get(cls.__name__, (cls,))[0] is not cls:
        raise ConfigError(
            f"the name {cls.__name__} is registered for another class: got {cls}, expected "
            f"{_TABLE[cls.__name__][0]}. Rename one.",
            code="config.duplicate",
        )
    _TABLE[cls.__name__] = (cls, arguments)
    return cls


def describe(
    value: object,
    tensors: dict[str, Tensor],
    path: str = "",
    seen: dict[int, str] | None = None,
) -> object:
    """``value`` as JSON; the tensors it needs for its *construction* go to ``tensors``.

    A tensor is named by its path of attributes, as in a state dict, where it may stand anyway; a
    module met a second time (tied weights) is named by the path of the first.

    Raises:
        CheckpointError: ``config.unregistered`` for an object of a class without a name.
    """
    seen = {} if seen is None else seen
    if isinstance(value, Tensor) and not value.dim():
        return value.item()
    if isinstance(value, Tensor):
        tensors[path] = value.detach()
        return {"tensor": path, "learned": isinstance(value, nn.Parameter)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}  # which JSON has no name for
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list | nn.ModuleList):
        return [describe(item, tensors, _join(path, str(i)), seen) for i, item in enumerate(value)]
    if id(value) in seen:
        return {"same": seen[id(value)]}
    seen[id(value)], name = path, type(value).__name__
    if _TABLE.get(name, (None,))[0] is not type(value):
        raise CheckpointError(
            f"{type(value)} cannot be saved: got a class without a registered name. "
            f"Register it: vsae.config.register({name}, 'argument', …).",
            code="config.unregistered",
            context={"class": name},
        )
    settings = {
        argument: describe(getattr(value, argument), tensors, _join(path, argument), seen)
        for argument in _TABLE[name][1]
    }
    return {"class": name, **settings}


def build(
    spec: object,
    tensors: dict[str, Tensor],
    path: str = "",
    seen: dict[str, object] | None = None,
) -> object:
    """The object a description describes, freshly constructed; :func:`describe`'s inverse.

    Raises:
        CheckpointError: ``config.unregistered`` for a name not in the table, ``config.arguments``
            for missing or unknown arguments, ``config.tensor`` for a missing tensor or module.
    """
    seen = {} if seen is None else seen
    if isinstance(spec, list):
        return tuple(build(v, tensors, _join(path, str(i)), seen) for i, v in enumerate(spec))
    if not isinstance(spec, dict):
        return spec
    if "float" in spec:
        return float(spec["float"])
    if "tensor" in spec:
        tensor = _look_up(tensors, spec["tensor"])
        return nn.Parameter(tensor.clone()) if spec.get("learned") else tensor
    if "same" in spec:
        return _look_up(seen, spec["same"])
    cls, arguments = _class(spec)
    given = {a: build(spec[a], tensors, _join(path, a), seen) for a in arguments}
    seen[path] = cls(**given)
    return seen[path]


def _class(spec: dict) -> tuple[type, tuple[str, ...]]:
    name, given = spec.get("class"), set(spec) - {"class"}
    if name not in _TABLE:
        raise CheckpointError(
            f"unknown class name: got {name!r}, expected one of {sorted(_TABLE)}. "
            "Import the package that registers it first.",
            code="config.unregistered",
            context={"class": name},
        )
    if given != set(_TABLE[name][1]):
        raise CheckpointError(
            f"{name} needs arguments {sorted(_TABLE[name][1])}: got {sorted(given)}.",
            code="config.arguments",
            context={"class": name},
        )
    return _TABLE[name]


def references(spec: object) -> set[str]:
    """Names of the tensors a description refers to."""
    if isinstance(spec, list):
        return set().union(*map(references, spec))
    if not isinstance(spec, dict):
        return set()
    return {spec["tensor"]} if "tensor" in spec else set().union(*map(references, spec.values()))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _look_up(table: dict, name: str) -> object:
    if name not in table:
        raise CheckpointError(
            f"the settings name {name!r}, which is missing.", code="config.tensor"
        )
    return table[name]


register_all(register)
