"""A model that is to be attacked or looked at: ours or anybody's, ready, with its task and what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ltrobust_bench.attacks.terms import Attack, Target
from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.data.given import GivenCounts
from ltrobust_bench.data.loader import DeviceData, to_unit
from ltrobust_bench.data.registry import Dataset, named
from ltrobust_bench.errors import CheckpointError, UsageError
from ltrobust_bench.evaluation import identity
from ltrobust_bench.evaluation.about import About, in_words
from ltrobust_bench.evaluation.blame import blamed
from ltrobust_bench.evaluation.evaluator import frozen
from ltrobust_bench.evaluation.examine import first_places
from ltrobust_bench.evaluation.foreign import Attached, Constants, Look, Normalised, look
from ltrobust_bench.plan.code import package_sha256
from ltrobust_bench.plan.task import Task, make_task
from ltrobust_bench.training import checkpoint as ckpt
from ltrobust_bench.verbs.loading import load_model

Model = nn.Module | Callable[[Tensor], Tensor] | str | Path
"""What can be evaluated: a module or function from [0, 1] pixels to logits, or the path of a network of ours."""
PROBED = 4
"""Test images whose logits are part of a model's identity."""
EXAMINED, EXAMINED_IN_SMOKE = 200, 20
"""Test images on which a model's reliability is measured; the few of a smoke protocol, whose numbers mean nothing, show
that it runs."""


class AsModule(nn.Module):
    """A plain function as a module, or a module that refuses ``eval()``, as an exported program does. How it behaves
    is told by its logits."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def train(self, mode: bool = True) -> AsModule:
        """Train or eval mode, as far as what is inside has one."""
        try:
            return super().train(mode)
        except Exception:  # somebody's code may raise anything
            return self


def as_module(model: nn.Module | Callable[[Tensor], Tensor]) -> nn.Module:
    """A module or function as a module that can be put into eval mode."""
    if not isinstance(model, nn.Module):
        return AsModule(model)
    try:
        model.train(model.training)
    except Exception:  # somebody's code may raise anything
        return AsModule(model)
    return model


@dataclass(frozen=True)
class Subject:
    """A model ready to be attacked, its task, and where it is.

    Attributes:
        weights_sha256: digest of its tensors; of a network of ours the one in its file and its record.
        look: at a model that is not ours.
    """

    module: nn.Module
    task: Task
    device: torch.device
    weights_sha256: str
    look: Look | None = None

    def about(self, attacks: Mapping[str, Attack], surrogates: Mapping[str, nn.Module] | None = None) -> About:
        """What tables of it are about; ``attacks`` and the second models of some of them by their names there."""
        task, protocol = self.task, self.task.protocol
        terms = {name: in_words(attack, task.epsilon, task.ball.name) for name, attack in attacks.items()}
        for name, surrogate in (surrogates or {}).items():
            terms[name] += f" surrogate={ckpt.weights_sha256(identity.tensors_of(surrogate))[:12]}"
        split = task.split
        digest = protocol.digest(task.spec.name)
        return About(
            self.weights_sha256, task.spec.name, split.train_sha256, split.test_sha256, protocol.name, digest, terms
        )

    def parts(
        self, attacks: list[Attack] | None, surrogates: Mapping[str, nn.Module], modules: Sequence[str]
    ) -> dict[str, Any]:
        """What a verdict depends on, part by part."""
        module, task = self.module, self.task
        # The logits come first: what a forward imports is code of the model, too.
        with frozen(module):
            spread = task.split.test[np.linspace(0, len(task.split.test) - 1, PROBED).astype(int)]
            pixels = torch.from_numpy(task.source.test_pixels(spread)).to(self.device)
            logits = identity.probe(module, to_unit(pixels), task.classes)
        inner = module
        while isinstance(inner, (Attached, Normalised)):
            inner = inner.model
        made_of = inner.function if isinstance(inner, AsModule) else inner
        return {
            "weights": ckpt.weights_sha256(identity.tensors_of(module)),
            "class": f"{type(made_of).__module__}.{type(made_of).__qualname__}",
            "code": identity.code_of(made_of, modules),
            identity.LOGITS: logits,
            "images": [task.split.test_sha256, task.source.sha256],
            "protocol": [task.protocol.digest(task.spec.name), task.epsilon],
            "attacks": None if attacks is None else [attack.model_dump(mode="json") for attack in attacks],
            "second model": {n: ckpt.weights_sha256(identity.tensors_of(other)) for n, other in surrogates.items()},
            "code of ltbench": package_sha256("evaluation"),
        }


def subject_of(
    model: Model,
    dataset: Dataset | None,
    device: str,
    *,
    protocol: str | None = None,
    imbalance_ratio: float | None = None,
    profile: str | None = None,
    train_counts: Sequence[int] | None = None,
    normalise: Constants | None = None,
    **terms: Any,
) -> Subject:
    """A model ready to be attacked; of a network of ours what is not given is its own.

    Args:
        train_counts: training images per label of the split that the model was trained on, [C], instead of ours.
        normalise: mean and standard deviation, of each channel or one for all: the model is given (x - mean) / std.
    """
    weights = ""
    if train_counts is not None and (imbalance_ratio, profile) != (None, None):
        raise UsageError("the training counts say what the split is: leave imbalance ratio and profile out.")
    dataset = None if dataset is None else named(dataset)
    if isinstance(model, (str, Path)):
        loaded = load_model(Path(model), device=device)
        own = loaded.run
        if (train_counts, normalise) != (None, None):
            raise UsageError(f"{model} is a network of ours: it knows its training counts and its input.")
        if dataset is not None and dataset != own.dataset:
            raise CheckpointError(f"{model} was trained on {own.dataset}, not on {dataset}.")
        if own.holdout is not None:
            if (imbalance_ratio, profile) != (None, None):
                raise UsageError(
                    f"{model} was trained on a part of its split and is tested on the rest: leave imbalance ratio and "
                    f"profile out."
                )
            terms["holdout"] = own.holdout
        terms["data_dir"] = loaded.place(terms.get("data_dir"))
        dataset, protocol = own.dataset, protocol or own.protocol
        imbalance_ratio, profile = imbalance_ratio or own.asked_ratio, profile or own.profile
        module: nn.Module = loaded.model
        weights = loaded.weights_sha256
    elif dataset is None:
        raise UsageError("evaluate(model, dataset) needs the name of a data set; `ltbench list datasets` shows them.")
    else:
        module = as_module(model)
    own_device = next((p.device for p in module.parameters()), None)
    where = own_device if device == "auto" and own_device is not None else choose_device(device)
    task = make_task(
        dataset,
        protocol=protocol,
        imbalance_ratio=imbalance_ratio,
        profile=profile,
        **terms,
    )
    if train_counts is not None:
        task = replace(task, split=GivenCounts.of(task.split, train_counts))
    if normalise is not None:
        module = Normalised(module, *normalise, channels=task.spec.shape[0])
    looked = None
    with blamed(f"on its way to {where}", only=True):
        module = module.to(where)
    if not isinstance(model, (str, Path)):
        looked = _looked_at(module, task, where)
    return Subject(module, task, where, weights or ckpt.weights_sha256(identity.tensors_of(module)), looked)


def tested_images(task: Task, index: np.ndarray, device: torch.device) -> DeviceData:
    """Test images by their places in the data set, [N], on a device."""
    return DeviceData.of(task.source.test_pixels(index), np.asarray(task.source.test_labels[index]), device)


def examined(task: Task) -> int:
    """On how many test images a model's reliability is measured."""
    return EXAMINED_IN_SMOKE if task.protocol.status == "smoke" else EXAMINED


def _looked_at(module: nn.Module, task: Task, device: torch.device) -> Look:
    """See that a model that is not ours takes the data set's pixels, or say what it does instead."""
    labels = np.asarray(task.source.test_labels[task.split.test])
    data = tested_images(task, task.split.test[first_places(labels, max(1, EXAMINED // task.classes))], device)
    suite, splitting = task.protocol.evaluation, Splitting(module)
    on = Target(splitting, task.classes, task.epsilon, task.ball, suite.seed, device)
    with frozen(module):
        return splitting.fit(lambda: look(on, to_unit(data.images), data.labels, suite.batch_size), len(data))
