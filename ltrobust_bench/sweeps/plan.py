"""Plans of sweeps: TOML files that state many runs at once.

A plan has tables ``[[runs]]``. Each holds what ``ltbench run`` is asked for, under the same names; where it gives a
list, there is a run for each value, and with several lists for each combination. ``[defaults]`` holds for every table
that does not say otherwise, and what matches an ``[[exclude]]`` is left out::

    [defaults]
    dataset = "digits-lt"
    seed = [0, 1, 2]

    [[runs]]                                  # 4 methods x 3 seeds
    method = ["at", "trades", "reat", "tde"]

    [[runs]]                                  # 2 x 2 x 3, less 3
    method = ["at", "at-bsl"]
    plugins = ["none", "awp"]
    settings.attack.steps = 5

    [[exclude]]
    method = "at-bsl"
    plugins = "awp"

Runs start as stated, but seed by seed: each with its first seed before any with its second, so that a plan that is half
done is a whole board of fewer seeds. A table with ``stage = 2`` is done after all that state a lower one, or none
(1); a run that several tables state is done with the first of them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, ValidationError

from ltrobust_bench.errors import LTBenchError, UnknownNameError, UsageError
from ltrobust_bench.plan.request import FIELDS, Request
from ltrobust_bench.plan.run import Holdout, Policy
from ltrobust_bench.protocol.spec import Crafting, Precision, Profile, Track
from ltrobust_bench.reading import read_toml
from ltrobust_bench.terms import Strict, first_problem

T = TypeVar("T")
Scalar = bool | int | float | str
Axis = Annotated[
    list[T], Field(min_length=1), BeforeValidator(lambda given: given if isinstance(given, list) else [given])
]
"""One value, or a list of values that are all tried."""
NO_PLUGIN = "none"


def _flat(given: Any) -> Any:
    """Nested tables by dotted names: ``settings.attack.steps = 5`` is the setting ``attack.steps``."""
    if not isinstance(given, Mapping):
        return given
    flat: dict[str, Any] = {}
    for name, value in given.items():
        below = _flat(value)
        flat |= {f"{name}.{k}": v for k, v in below.items()} if isinstance(below, dict) else {name: value}
    return flat


class Runs(Strict):
    """Runs with everything that may be said of them: the fields of :class:`Request`, one value or a list of each.

    Attributes:
        plugins: combinations of plug-ins, each joined by ``+`` as boards write them (``awp+robustlt``), or ``none``.
        settings: values by name.
        crafting, compile: how they are computed, see ``ltbench run --help``.
        stage: they are done after all of lower stages; one number for a table as a whole (default: 1).
        others: see :class:`Request`.
    """

    method: Axis[str] | None = None
    dataset: Axis[str] | None = None
    plugins: Axis[str] | None = None
    settings: Annotated[dict[str, Axis[Scalar]], BeforeValidator(_flat)] = {}
    protocol: Axis[str] | None = None
    track: Axis[Track] | None = None
    imbalance_ratio: Axis[float] | None = None
    profile: Axis[Profile] | None = None
    model: Axis[str] | None = None
    seed: Axis[int] | None = None
    epochs: Axis[int] | None = None
    limit_train: Axis[int] | None = None
    limit_test: Axis[int] | None = None
    holdout: Axis[Holdout] | None = None
    extra_data: Axis[str] | None = None
    pretrained: Axis[str] | None = None
    precision: Axis[Precision] | None = None
    crafting: Axis[Crafting] | None = None
    compile: Axis[bool] | None = None
    stage: int | None = Field(default=None, ge=1)

    def axes(self) -> dict[str, list[Any]]:
        """The values of everything that is stated; of settings by ``settings.NAME``."""
        stated = {name: getattr(self, name) for name in type(self).model_fields if name not in ("settings", "stage")}
        return {name: values for name, values in stated.items() if values is not None} | {
            f"settings.{name}": values for name, values in self.settings.items()
        }


class SweepPlan(Strict):
    """A plan as its file states it."""

    defaults: Runs = Runs()
    runs: list[Runs] = Field(min_length=1)
    exclude: list[Runs] = []

    def requests(self) -> list[Request]:
        """All runs, each once, in the order in which they start: stage by stage, there seed by seed, there as stated.

        Raises:
            UsageError: naming the table, for runs without method or data set, impossible values, and exclusions that
                leave nothing out.
        """
        found: dict[Request, tuple[int, int]] = {}
        for name, table in (("defaults", self.defaults), *(("exclude", runs) for runs in self.exclude)):
            if table.stage is not None:
                raise UsageError(f"[{name}]: stage is stated by [[runs]] only.")
        excluded = [(runs.axes(), [0]) for runs in self.exclude]
        for number, runs in enumerate(self.runs, 1):
            axes = self.defaults.axes() | runs.axes()
            turns = {seed: turn for turn, seed in enumerate(axes.get("seed", []))}
            for point in _points(axes):
                matching = [count for axes, count in excluded if _matches(point, axes)]
                for count in matching:
                    count[0] += 1
                if not matching:
                    try:
                        request = _request(point)
                    except LTBenchError as error:
                        raise UsageError(f"[[runs]] {number}: {error}") from None
                    place = (runs.stage or 1, turns.get(point.get("seed"), 0))
                    found[request] = min(found.get(request, place), place)
        for number, (axes, count) in enumerate(excluded, 1):
            if not axes or not count[0]:
                raise UsageError(f"[[exclude]] {number} matches none of the runs: mend it, or leave it out.")
        if not found:
            raise UsageError("all runs are excluded; nothing is left to do.")
        return sorted(found, key=found.__getitem__)


def _points(axes: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _matches(point: Mapping[str, Any], axes: Mapping[str, list[Any]]) -> bool:
    """Whether a run has one of the values of everything that an exclusion states; what it does not state itself is at
    its default, which is told from ``none`` and the request's own."""
    return all(point.get(name, _DEFAULTS.get(name)) in values for name, values in axes.items())


_DEFAULTS = {"plugins": NO_PLUGIN, "track": "fixed", "seed": 0, "compile": False}


def _request(point: Mapping[str, Any]) -> Request:
    for name in ("method", "dataset"):
        if name not in point:
            raise UsageError(f"there is no {name}: name one here or in [defaults].")
    fields = {name: value for name, value in point.items() if name in FIELDS and name != "plugins"}
    plugins = point.get("plugins", NO_PLUGIN)
    return Request(
        **fields,
        plugins=() if plugins == NO_PLUGIN else tuple(plugins.split("+")),
        settings={name.removeprefix("settings."): v for name, v in point.items() if name.startswith("settings.")},
        policy=_policy(point),
    )


def _policy(point: Mapping[str, Any]) -> Policy | None:
    """How it is computed; None: as the protocol says."""
    if point.keys().isdisjoint(("crafting", "compile")):
        return None
    return Policy.asked(point.get("crafting", "network"), point.get("compile", False), point.get("precision"))


def read_plan(path: Path) -> SweepPlan:
    """The plan in a TOML file.

    Raises:
        UnknownNameError: for a key that means nothing, with the nearest one.
        UsageError: if it is no plan; the message names the field.
    """
    try:
        stated = read_toml(path)
    except FileNotFoundError:
        raise UsageError(f"no plan at {path}; docs/scale.md shows one.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no plan: {first_problem(error)}.") from None
    _refuse_unknown(stated, SweepPlan, f"table of {path}")
    for name in SweepPlan.model_fields:
        tables = stated.get(name, [])
        for table in tables if isinstance(tables, list) else [tables]:
            if isinstance(table, dict):
                _refuse_unknown(table, Runs, f"key of [{name}] in {path}")
    try:
        return SweepPlan.model_validate(stated)
    except ValidationError as error:
        raise UsageError(f"{path} is no plan: {_in_table(first_problem(error))}.") from None


def _in_table(problem: str) -> str:
    """``runs.0.seed`` as a person counts: ``[[runs]] 1: seed``."""
    return re.sub(r"^(runs|exclude)\.(\d+)\.", lambda found: f"[[{found[1]}]] {int(found[2]) + 1}: ", problem)


def _refuse_unknown(given: Mapping[str, Any], known: type[Strict], kind: str) -> None:
    for name in given:
        if name not in known.model_fields:
            raise UnknownNameError(kind, name, known.model_fields)
