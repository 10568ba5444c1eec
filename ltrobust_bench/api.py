"""Everything a contributor imports to write a defense.

A method is *composed of parts*; each has a default, and most methods replace one or two::

    def method(options: Mapping[str, Any], data: TrainInfo) -> Method:
        return Method(loss=adversarial(balanced_softmax(data.counts)))

How the trainer uses the parts, for each batch (x, y) of those that the ``sampler`` draws:

0. ``batch(x, y, ctx)`` may put other images and targets in their place;
1. craft ``x_adv``: projected gradient ascent on ``objective`` (recipe: radius, steps, start, batch-norm mode), in
   the epochs in which the method ``crafts``;
2. ``loss(outputs, y, ctx)`` on the network in train mode; ``outputs.clean`` and ``outputs.adversarial`` are
   computed when first asked for, so a loss pays only for the forwards it uses;
3. one optimiser step; every ``memory`` and plug-in sees the step.

After training, ``deploy`` turns the network into the model that is attacked and published.

What the trainer gives a part is to be read: ``outputs``, ``ctx`` and ``step`` have the names below and no others, and a
part that writes into a tensor it was given (x, y, logits, features) stops the training; it may write into a copy. Every
image that a part passes through the network is counted as cost, whichever way the part came by it. ``ltbench check``
also refuses parts that change torch's settings or this package's functions.

Several devices can share a run. Each of them then calls every part with the whole batch and gets the same from it, so a
part need not know of the others; what it draws it draws from torch's global generator or the one that it is given.

Shapes: B images, C classes, D features. x is [B, channels, height, width] in [0, 1]; y is int64 [B]; logits are
[B, C]; features are [B, D]. Formulas that need "head" or "tail" go by class *rank* (``data.ranks``), never by label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TrainInfo:
    """What a method may know about the training set.

    Attributes:
        counts: training images per label, float64 on the training device, shape [C].
        dataset: name of the data set, for methods whose authors state values per data set.
        epochs: length of the budget in epochs.
    """

    counts: Tensor
    dataset: str
    epochs: int

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.counts)

    @property
    def ranks(self) -> Tensor:
        """Rank of each label, 0 = most training images, ties by label; int64, shape [C]."""
        order = torch.argsort(self.counts, descending=True, stable=True)
        return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


class Output(NamedTuple):
    """One forward pass: logits [B, C] and penultimate features [B, D]."""

    logits: Tensor
    features: Tensor


class Outputs(Protocol):
    """Forward passes of one step. Those of the two batches are in train mode, computed once, when first asked for."""

    @property
    def x(self) -> Tensor:
        """The clean batch: images in [0, 1], [B, channels, height, width]; to be read."""
        ...

    @property
    def x_adv(self) -> Tensor:
        """The crafted batch; ``x`` in an epoch without an attack; to be read."""
        ...

    @property
    def clean(self) -> Output:
        """Of the images as they are."""
        ...

    @property
    def adversarial(self) -> Output:
        """Of the crafted images."""
        ...

    def of(self, images: Tensor, mode: Literal["train", "eval", "batch"] = "train") -> Output:
        """Of any images, computed anew each time, with gradient: a further view of the batch. Batch norm in mode
        ``train`` takes the batch's statistics and the running ones move, in ``batch`` they do not move, and ``eval``
        takes the running ones."""
        ...

    def companion(self, images: Tensor) -> Output:
        """Of any images by the method's ``companion``, in train mode, with gradient; of ``x`` and ``x_adv`` once."""
        ...

    def after_update(self) -> Output:
        """Adversarial batch through the network *after* the optimiser step (no gradient)."""
        ...


class StepContext(Protocol):
    """What a part may ask about the step it is in."""

    @property
    def epoch(self) -> int:
        """1-based."""
        ...

    @property
    def epochs(self) -> int:
        """Length of the budget."""
        ...

    @property
    def partners(self) -> tuple[Tensor, Tensor]:
        """Images [B, channels, height, width] and labels [B] that were drawn beside the batch's, augmented as they are;
        where the sampler draws pairs."""
        ...

    def natural_logits(self) -> Tensor:
        """Logits of the clean batch in the batch-norm mode of crafting, detached; [B, C]."""
        ...

    def teacher_logits(self) -> Tensor:
        """The teacher's logits of the adversarial batch (the card's ``base``), eval mode, detached; [B, C]. An
        objective, which is asked before there is one, gets those of the clean batch."""
        ...


class Mixed(NamedTuple):
    """Targets of images that are mixtures of two: labels int64 [B], for each image its partner's [B], and the share of
    the former, one number for the batch. Objective and loss are asked once for each label, and the values are mixed
    likewise, so whatever a method makes of labels, it can do with these."""

    labels: Tensor
    partners: Tensor
    share: float


BatchRule = Callable[[Tensor, Tensor, StepContext], tuple[Tensor, Tensor | Mixed]]
"""(images x in [0, 1], labels y [B], ctx) -> (images, targets), before crafting. Targets are what objective and loss
get as ``y``: labels, mixed ones, or whatever else this method's own objective and loss understand, as soft labels
[B, C]. Attack budgets and memories get the labels of the images as they were drawn."""
Criterion = Callable[[Tensor, Tensor], Tensor]
"""(logits [B, C], y [B]) -> scalar."""
Objective = Callable[[Tensor, Tensor, StepContext], Tensor]
"""What the inner maximisation climbs: (logits [B, C], y [B], ctx) -> one value per image [B].

It may be called more often than the attack has steps, and must give the same again: where memory does not suffice, the
attack begins anew and passes the batch through the network in parts. It always gets the logits of the whole batch, and
what it asks for itself is counted once, however often the attack begins.
"""
OuterLoss = Callable[[Outputs, Tensor, StepContext], Tensor]
"""What the optimiser descends: (outputs, y [B], ctx) -> scalar."""
Head = Callable[[int, int], nn.Module]
"""(D, C) -> module from features [B, D] to training logits [B, C]."""
Sampler = Callable[[np.ndarray, int, int, np.random.Generator], np.ndarray]
"""(labels [N], draws, epoch, generator) -> indices, at most the first ``draws`` of which make the epoch; in two rows
[2, n] each image and its partner, see :attr:`StepContext.partners`."""


Crafts = Callable[[int, int], bool]
"""(epoch from 1, epochs) -> whether adversarial examples are crafted in that epoch."""


class Network(nn.Module):
    """A backbone that gives features and a head that gives logits."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def outputs(self, x: Tensor) -> Output:
        """Logits and features of ``x``."""
        features = self.backbone(x)
        return Output(self.head(features), features)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of ``x``."""
        return self.head(self.backbone(x))


class Group(NamedTuple):
    """Parameters with a learning rate and a weight decay of their own, as shares of the recipe's."""

    parameters: Sequence[nn.Parameter]
    lr: float = 1.0
    weight_decay: float = 1.0


Trains = Callable[[Network], Iterable[nn.Parameter | Group]]
"""network -> the parameters that the optimiser moves, some of them in groups; the others keep their values."""
Deploy = Callable[[Network, TrainInfo], nn.Module]
"""(trained network, data) -> module from pixels in [0, 1] to logits, nothing else."""


class Memory(Protocol):
    """A part that remembers something between steps; saved in checkpoints, so resuming is exact."""

    def on_step_end(self, outputs: Outputs, y: Tensor, network: Network) -> None:
        """After each optimiser step, plug-ins' own work on it included. What is done to the network's weights stays."""
        ...

    def on_epoch_end(self, epoch: int, network: Network) -> None:
        """After each epoch (from 1). The network may be given other weights; images passed through it are counted."""
        ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


# --- the defaults -------------------------------------------------------------------------------------------


def cross_entropy(logits: Tensor, y: Tensor, ctx: StepContext | None = None) -> Tensor:
    """Cross-entropy per image, shape [B]: the objective of plain adversarial training."""
    return F.cross_entropy(logits, y, reduction="none")


def adversarial(criterion: Criterion) -> OuterLoss:
    """The outer loss that applies ``criterion`` to the adversarial logits."""

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        return criterion(outputs.adversarial.logits, y)

    return loss


def linear(features: int, classes: int) -> nn.Module:
    """A linear head with bias, the framework's initialisation U(+-1/sqrt(D))."""
    return nn.Linear(features, classes)


def shuffle(labels: np.ndarray, draws: int, epoch: int, generator: np.random.Generator) -> np.ndarray:
    """Every image once, in random order."""
    return generator.permutation(len(labels))


def as_drawn(x: Tensor, y: Tensor, ctx: StepContext) -> tuple[Tensor, Tensor]:
    """Images and labels as they were drawn."""
    return x, y


def always(epoch: int, epochs: int) -> bool:
    """Craft in every epoch."""
    return True


def never(epoch: int, epochs: int) -> bool:
    """Train on clean images only."""
    return False


def clean(criterion: Criterion) -> OuterLoss:
    """The outer loss that applies ``criterion`` to the clean logits."""

    def loss(outputs: Outputs, y: Tensor, ctx: StepContext) -> Tensor:
        return criterion(outputs.clean.logits, y)

    return loss


def identity(network: Network, data: TrainInfo) -> nn.Module:
    """Deploy the network as it was trained."""
    return network


def everything(network: Network) -> Iterable[nn.Parameter]:
    """Every parameter is trained."""
    return network.parameters()


def head_only(network: Network) -> Iterable[nn.Parameter]:
    """The head is trained, the backbone's weights stay; its batch-norm statistics still move."""
    return network.head.parameters()


class AttackBudget(NamedTuple):
    """Radius, step length and amplitude of the random start of the inner attack, [0, 1] pixel scale; each one value,
    or one per image [B]."""

    epsilon: float | Tensor
    step_size: float | Tensor
    start: float | Tensor


class PluginStep(StepContext, Protocol):
    """The step that a plug-in wraps."""

    @property
    def x(self) -> Tensor:
        """Images in [0, 1], [B, channels, height, width]."""
        ...

    @property
    def y(self) -> Tensor:
        """Labels, int64 [B]."""
        ...

    @property
    def network(self) -> Network:
        """What is trained; its weights may be changed, images passed through it are counted."""
        ...

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Moves the network's weights."""
        ...

    def fresh_loss(self) -> Tensor:
        """The host's outer loss on this batch through the network as it is now; scalar with gradient."""
        ...


class Plugin:
    """Wraps any method. Every hook does nothing unless overridden; plug-ins apply in their cards' declared order.

    A plug-in is a :class:`Memory`, too: it is told of the ends of steps and epochs, after the host's own memories, and
    what it remembers is in checkpoints.
    """

    def order(self, order: np.ndarray, labels: np.ndarray, epoch: int, generator: np.random.Generator) -> np.ndarray:
        """Other images of an epoch than those that the host's sampler drew, or the same and their partners."""
        return order

    def batch(self, x: Tensor, y: Tensor, ctx: StepContext) -> tuple[Tensor, Tensor | Mixed]:
        """Other images and targets than the host's, see :data:`BatchRule`; of all parts, one may change targets."""
        return x, y

    def attack_budget(self, budget: AttackBudget, y: Tensor, ctx: StepContext) -> AttackBudget:
        """Another budget for the inner attack on images of labels ``y``."""
        return budget

    def before_loss(self, step: PluginStep) -> None:
        """After crafting, before the outer loss."""

    def after_update(self, step: PluginStep) -> None:
        """After the optimiser's step."""

    def on_step_end(self, outputs: Outputs, y: Tensor, network: Network) -> None:
        """As :meth:`Memory.on_step_end`."""

    def on_epoch_end(self, epoch: int, network: Network) -> None:
        """As :meth:`Memory.on_epoch_end`: a plug-in gives the network the weights to deploy at the last epoch's end."""

    def state_dict(self) -> dict[str, Tensor]:
        """As :meth:`Memory.state_dict`."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """As :meth:`Memory.load_state_dict`."""


BudgetRule = Callable[[AttackBudget, Tensor, StepContext], AttackBudget]
"""(the recipe's budget, y [B], ctx) -> the budget of the inner attack on these images."""


def as_given(budget: AttackBudget, y: Tensor, ctx: StepContext) -> AttackBudget:
    """The recipe's budget for every image."""
    return budget


@dataclass(frozen=True)
class Method:
    """A defense as the composition of its parts.

    ``inherits`` says which parts of the network take the weights of the run that the card's ``base`` starts from;
    a head's tensors are taken where name and shape agree. ``companion`` is the head of a second network, like the first
    but for that head and its start, which the same optimiser trains beside it and which is not deployed; a second
    network that is finished and stays as it is is the ``base`` of a card, in the role of a teacher.
    """

    batch: BatchRule = as_drawn
    objective: Objective = cross_entropy
    attack_budget: BudgetRule = as_given
    loss: OuterLoss = adversarial(F.cross_entropy)
    head: Head = linear
    sampler: Sampler = shuffle
    crafts: Crafts = always
    trains: Trains = everything
    companion: Head | None = None
    inherits: tuple[str, ...] = ("backbone", "head")
    deploy: Deploy = identity
    memory: Mapping[str, Memory] = field(default_factory=dict)
