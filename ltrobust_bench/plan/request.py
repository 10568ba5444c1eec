"""What a person asks for: a run before anything is looked up. A job is a request: light, picklable, without pixels."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from ltrobust_bench.cards import Value
from ltrobust_bench.data.registry import Dataset, named
from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.plan.run import CUTS, Holdout, Policy, RunSection
from ltrobust_bench.plan.task import Task, make_task
from ltrobust_bench.protocol.spec import Precision, Profile, Track

if TYPE_CHECKING:
    from ltrobust_bench.plan.make import Plan

P = ParamSpec("P")
R = TypeVar("R")
SEEDS = 2**31
TRACKS, HOLDOUTS = ("fixed", "paper"), ("val",)


@dataclass(frozen=True)
class Request:
    """A run as it is asked for; what is None is the protocol's or the card's. Equal requests are equal, and hashable.

    Attributes:
        method, dataset, protocol, model: names in the registries; a :class:`DatasetSpec` is taken, and kept by its
            name (see :func:`~ltrobust_bench.data.registry.register_dataset`).
        plugins: plug-ins around the method; they apply in the order of their cards.
        settings: method options (``tail=off``) and recipe settings (``attack.steps=5``) by name; a mapping is
            taken, and kept as pairs sorted by name: ``dict(request.settings)``.
        track: ``fixed`` (one budget for all) or ``paper`` (the authors' recipe).
        imbalance_ratio: largest over smallest class.
        profile: ``exp``, ``step``, ``balanced`` or ``own``.
        seed: of training, 0 to 2^31 - 1; split and evaluation do not depend on it.
        epochs: a budget other than the recipe's; makes a reduced run, as all that follow do.
        limit_train: so many training images or just below, in the same proportions.
        limit_test: first limit // C test images of each class.
        holdout: ``val``: a tenth of each class's training images is left out of training and tested on instead of the
            test set.
        extra_data: training images beyond the split's, by the name or path of their declaration (see
            :mod:`ltrobust_bench.data.extra`).
        pretrained: weights that a network of timm or torchvision starts from: ``hub`` (its library's own), or a file
            (see :mod:`ltrobust_bench.models.pretrained`).
        precision: ``tf32``, ``fp32`` or ``bf16`` (see :data:`ltrobust_bench.protocol.spec.Precision`), where it is to
            differ from the protocol's.
        policy: how the arithmetic is carried out, ``Policy()`` being the reference path; None: what the protocol says.

    Raises:
        UsageError: for what can be told to be impossible without looking anything up.

    Example: ``Request("reat", "digits-lt", settings={"tail": "off"}, seed=1).to_plan().run.key()``
    """

    method: str
    dataset: str
    plugins: tuple[str, ...] = ()
    settings: Mapping[str, Any] | tuple[tuple[str, Value], ...] = ()
    protocol: str | None = None
    track: Track = "fixed"
    imbalance_ratio: float | None = None
    profile: Profile | None = None
    model: str | None = None
    seed: int = 0
    epochs: int | None = None
    limit_train: int | None = None
    limit_test: int | None = None
    holdout: Holdout | None = None
    extra_data: str | None = None
    pretrained: str | None = None
    precision: Precision | None = None
    policy: Policy | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset", named(self.dataset))
        for name in ("method", "protocol", "model"):  # names are typed in any case, and kept as they are written
            object.__setattr__(self, name, getattr(self, name) and getattr(self, name).lower().replace(":", "-"))
        object.__setattr__(self, "plugins", tuple(name.lower() for name in self.plugins))
        object.__setattr__(self, "settings", tuple(sorted(dict(self.settings).items())))
        if self.track not in TRACKS:
            raise UnknownNameError("track", self.track, TRACKS)
        if self.holdout not in (None, *HOLDOUTS):
            raise UnknownNameError("holdout", self.holdout, HOLDOUTS)
        if self.epochs is not None and self.epochs < 1:
            raise UsageError(f"a budget of {self.epochs} epochs trains nothing; use 1 or more.")
        if not 0 <= self.seed < SEEDS:
            raise UsageError(f"seed must be between 0 and {SEEDS - 1}, got {self.seed}.")
        if self.precision == "bf16" and self.policy is not None and self.policy.crafting == "winograd":
            raise UsageError(
                "Winograd's method computes in float32: with bf16 craft on the network or the folded copy."
            )

    @classmethod
    def of(cls, run: RunSection) -> Request:
        """A request that gives this run's key again, with the protocol, card and data that it was made with. A run of
        less than its card's budget, because another builds on it, is asked for by that other one only."""
        given = run.options | run.overrides
        return cls(
            run.method,
            run.dataset,
            plugins=tuple(run.plugins),
            settings={name: value for name, value in given.items() if name != "precision"},
            protocol=run.protocol,
            track=run.track,
            imbalance_ratio=run.asked_ratio,
            profile=run.profile,
            model=run.model,
            seed=run.seed,
            **{name: getattr(run, name) for name in CUTS},
            extra_data=run.extra.name if run.extra else None,
            pretrained=run.pretrained.asked if run.pretrained else None,
            precision=run.recipe.precision if "precision" in run.overrides else None,
            policy=run.policy,
        )

    def replace(self, **changes: Any) -> Request:
        """The same request with some fields changed.

        Raises:
            UnknownNameError: for a name that is no field, with the nearest one.
        """
        for name in changes:
            if name not in FIELDS:
                raise UnknownNameError("argument", name, FIELDS)
        return dataclasses.replace(self, **changes)

    def to_plan(self, data_dir: Path | str | None = None) -> Plan:
        """Everything that the run fixes; see :func:`ltrobust_bench.plan.make.make_plan`."""
        from ltrobust_bench.plan.make import make_plan

        return make_plan(self, data_dir=data_dir)

    def task(self, data_dir: Path | str | None = None) -> Task:
        """Its data set under its protocol, see :func:`ltrobust_bench.plan.task.make_task`."""
        return make_task(
            self.dataset,
            protocol=self.protocol,
            imbalance_ratio=self.imbalance_ratio,
            profile=self.profile,
            limit_train=self.limit_train,
            limit_test=self.limit_test,
            holdout=self.holdout,
            data_dir=data_dir,
        )


FIELDS = {field.name: field for field in dataclasses.fields(Request)}


def takes_request(function: Callable[Concatenate[Request, P], R]) -> Callable[..., R]:
    """Have a function of a request take the request's fields as well: ``run(request)``, ``run("reat", "digits-lt",
    seed=1)`` or ``run(request, seed=1)``.

    Its signature shows all of them. Its own arguments after the request are by keyword only.

    Raises:
        UnknownNameError: when it is called with an argument that neither has, with the nearest one.
        UsageError: when it is called with a method and no data set.
    """
    first, *own = inspect.signature(function).parameters.values()
    names = {parameter.name for parameter in own}

    @wraps(function)
    def called(method: str | Request, dataset: Dataset | None = None, **given: Any) -> R:
        for name in given:
            if name not in names and name not in FIELDS:
                raise UnknownNameError(f"argument of {function.__name__}", name, [*FIELDS, *names])
        fields = {name: given.pop(name) for name in FIELDS if name in given}
        if dataset is not None:
            fields["dataset"] = dataset
        if isinstance(method, Request):
            request = method.replace(**fields)
        elif "dataset" in fields:
            request = Request(method, **fields)
        else:
            what = f"{function.__name__}(method, dataset)"
            raise UsageError(f"{what} needs a data set; `ltbench list datasets` shows them.")
        return function(request, **given)  # type: ignore[call-arg]

    shown = [
        inspect.Parameter("method", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation="str | Request"),
        inspect.Parameter(
            "dataset", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation="str | DatasetSpec | None"
        ),
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
            for name, field in FIELDS.items()
            if name not in ("method", "dataset")
        ),
        *own,
    ]
    called.__signature__ = inspect.signature(function).replace(parameters=shown)  # type: ignore[attr-defined]
    return called
