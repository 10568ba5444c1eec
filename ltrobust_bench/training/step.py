"""One training step: craft, outer loss, update, in the order and batch-norm modes that the recipe states."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from ltrobust_bench.api import AttackBudget, Memory, Method, Mixed, Network, Output, Plugin
from ltrobust_bench.attacks.ball import LINF, Ball
from ltrobust_bench.attacks.engine import ascend, crafting_mode, start_point
from ltrobust_bench.compute.counting import Counter
from ltrobust_bench.compute.forwards import Forwards
from ltrobust_bench.compute.memory import whole
from ltrobust_bench.errors import ContractError, UsageError
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.protocol.spec import Forward, Recipe
from ltrobust_bench.terms import BNMode, Start
from ltrobust_bench.training.views import ContextView, OutputsView, PluginView


@dataclass
class Trainee:
    """What a step works on: the network, its method and recipe, the optimiser, and how it is all computed; ``say`` is
    told in one line where that has to be in another way.

    The recipe's pixel-scale numbers must be floats (:meth:`ltrobust_bench.cards.Card.resolve_recipe`).
    """

    network: Network
    method: Method
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    counter: Counter
    plugins: tuple[Plugin, ...] = ()
    teacher: nn.Module | None = None
    policy: Policy = Policy()
    ball: Ball = LINF
    say: Callable[[str], None] = lambda line: None
    companion: Network | None = None
    forwards: Forwards = field(init=False)
    beside: Forwards | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        how = (self.policy, self.recipe.precision, self.counter, self.say, self.recipe.accumulate)
        self.forwards = Forwards(self.network, *how)
        if self.companion is not None:
            self.beside = Forwards(self.companion, *how)

    @property
    def networks(self) -> dict[str, Network]:
        """What is trained, by name: the network, and its companion if there is one."""
        return {"network": self.network} | ({"companion": self.companion} if self.companion is not None else {})

    @property
    def memories(self) -> dict[str, Memory]:
        """What remembers something, in the order in which it is told: the method's memories, then the plug-ins."""
        return {**self.method.memory, **{f"plug-in {place}": one for place, one in enumerate(self.plugins)}}


class Step:
    """One batch on its way through a step. A method sees it through :mod:`ltrobust_bench.training.views`.

    Args:
        trainee: what is trained.
        x: images in [0, 1], shape [B, channels, height, width].
        y: labels, int64, shape [B].
        partners: images and labels that were drawn beside them.
        epoch: 1-based.
        epochs: length of the budget.

    Attributes:
        x: the images that are trained on.
        y: labels of the images as they were drawn.
        targets: what objective and loss get as ``y``.
    """

    def __init__(
        self,
        trainee: Trainee,
        x: Tensor,
        y: Tensor,
        partners: tuple[Tensor, Tensor] | None = None,
        *,
        epoch: int,
        epochs: int,
    ) -> None:
        self.trainee, self.x, self.y, self.epoch, self.epochs = trainee, x, y, epoch, epochs
        self.partners = partners
        self._natural: Tensor | None = None
        self._taught: tuple[Tensor, Tensor] | None = None
        self._given: list[tuple[str, Tensor, int]] = []
        self._by_companion: dict[int, Output] = {}
        for name, given in (("x", x), ("y", y), *zip(("partners", "partners"), partners or (), strict=False)):
            self._give(name, given)
        self.x_adv = x
        self.x, self.targets = self._made()
        self.x_adv = self.x
        if self.x is not x:
            self._give("x", self.x)
            self._natural = None  # whoever made these images may have asked for it, of those before

    def _made(self) -> tuple[Tensor, Tensor | Mixed]:
        """Images and targets, as the method and its plug-ins make them of those that were drawn."""
        x, targets, context = self.x, self.y, ContextView(self)
        for rule in (self.trainee.method.batch, *(plugin.batch for plugin in self.trainee.plugins)):
            x, given = rule(x, self.y, context)
            if given is not self.y and targets is not self.y:
                raise UsageError(
                    "two parts of this training make targets of their own, as by mixing; take one of them."
                )
            targets = targets if given is self.y else given  # type: ignore[assignment]
        return x, targets

    def fresh_loss(self) -> Tensor:
        """The outer loss on this batch through the network as it is now; scalar with gradient."""
        again = copy.copy(self)
        for name in ("clean", "adversarial", "_after"):
            vars(again).pop(name, None)
        again._given, again._by_companion = [], {}
        return again._loss()

    def _of_targets(self, value: Callable[[Tensor], Tensor]) -> Tensor:
        """A value of labels for the step's targets: of mixed ones it is mixed."""
        if not isinstance(self.targets, Mixed):
            return value(self.targets)
        labels, partners, share = self.targets
        return share * value(labels) + (1 - share) * value(partners)

    def _loss(self) -> Tensor:
        # Views are made when they are handed out: kept, they would be a circle that keeps a step's tensors in memory.
        def of(y: Tensor) -> Tensor:
            return self.trainee.method.loss(OutputsView(self), y, ContextView(self))

        smoothing = self.trainee.recipe.label_smoothing
        if smoothing and not isinstance(self.targets, Mixed) and self.targets is not self.y:
            raise UsageError(
                "label_smoothing moves labels, and this training makes targets of another kind; leave it out, and "
                "smooth them where they are made."
            )
        return self._of_targets((lambda y: self._smoothed(of, y, smoothing)) if smoothing else of)

    def _smoothed(self, loss: Callable[[Tensor], Tensor], labels: Tensor, smoothing: float) -> Tensor:
        """(1 - s) L(y) + s mean_k L(y + k mod C), of the outer loss L as a function of the labels, in one batch.

        Of a loss that is linear in the one-hot labels (cross-entropy, whatever is added to the logits) it is label
        smoothing itself (Szegedy et al., CVPR 2016, section 7); what does not depend on labels keeps its weight. Labels
        move together, so that images of one class stay images of one class.
        """
        total = loss(labels)
        classes = next(logits.shape[1] for name, logits, _ in self._given if name == "logits")  # clean or adversarial
        shifted = sum((loss((labels + k) % classes) for k in range(1, classes)), start=torch.zeros_like(total))
        return (1 - smoothing) * total + smoothing / classes * (total + shifted)

    def natural_logits(self) -> Tensor:
        """Logits of the clean batch in the batch-norm mode of crafting, detached, computed once; [B, C]."""
        if self._natural is None:
            network = self.trainee.network
            with torch.no_grad(), crafting_mode(network, self.trainee.recipe.attack.bn_mode):
                self._natural = self._give("natural_logits()", self.trainee.forwards.logits(self.x))
            self.trainee.counter.forwards += len(self.x)
        return self._natural

    def teacher_logits(self) -> Tensor:
        """Logits of the adversarial batch by the teacher, while that is crafted of the clean one; detached, computed
        once; [B, C]."""
        assert self.trainee.teacher is not None, "the card names no teacher"
        if self._taught is None or self._taught[0] is not self.x_adv:
            self.trainee.counter.forwards += len(self.x)
            with torch.no_grad():
                self._taught = self.x_adv, self._give("teacher_logits()", self.trainee.teacher(self.x_adv))
        return self._taught[1]

    def craft(self, start: Start | Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Adversarial images: projected gradient ascent on the method's objective; the clean ones in an epoch in which
        the method does not craft.

        Args:
            start: the first iterate or its kind; default: the recipe's.
            generator: of the start's noise.
        """
        network, spec, counter = self.trainee.network, self.trainee.recipe.attack, self.trainee.counter
        if not self.trainee.method.crafts(self.epoch, self.epochs):
            return self.x_adv
        if self.trainee.recipe.clean_forward_before:
            network.train()
            with torch.no_grad():
                self._forward(self.x)
        context = ContextView(self)
        budget = AttackBudget(float(spec.epsilon), float(spec.step_size), float(spec.epsilon))
        budget = self.trainee.method.attack_budget(budget, self.y, context)
        for plugin in self.trainee.plugins:
            budget = plugin.attack_budget(budget, self.y, context)
        kind, ball = spec.start if start is None else start, self.trainee.ball
        first = start_point(self.x, budget.start, kind, spec.clamp_start, generator, ball)
        with crafting_mode(network, spec.bn_mode):
            attacked = self.trainee.forwards.attacked(self.x, spec.bn_mode)
            before = counter.forwards, counter.backwards, self._natural, self._taught

            def climbed(logits: Tensor, _: Tensor) -> Tensor:
                return self._of_targets(lambda y: self.trainee.method.objective(logits, y, context))

            def attack() -> Tensor:
                # Begun again in smaller parts, it counts what the objective asks for once.
                counter.forwards, counter.backwards, self._natural, self._taught = before
                return ascend(
                    attacked,
                    self.x,
                    self.y,
                    objective=climbed,
                    epsilon=budget.epsilon,
                    step_size=budget.step_size,
                    steps=spec.steps,
                    start=first,
                    ball=ball,
                )

            # Split, a batch would have other statistics than the whole: only in eval mode it may be.
            with whole(len(self.x), self.x.device):
                self.x_adv = attacked.fit(attack, len(self.x)) if spec.bn_mode == "eval" else attack()
        counter.forwards += spec.steps * len(self.x)
        counter.backwards += spec.steps * len(self.x)
        return self._give("x_adv", self.x_adv)

    def _forward(self, x: Tensor, by: Forwards | None = None) -> Output:
        counter = self.trainee.counter
        counter.forwards += len(x)
        output = (by or self.trainee.forwards).outputs(x)
        counter.follow(output)
        self._give("logits", output.logits)
        self._give("features", output.features)
        return output

    def _give(self, name: str, tensor: Tensor) -> Tensor:
        """Remember what a part of the method gets to see, to tell later whether it wrote into it."""
        self._given.append((name, tensor, tensor._version))
        return tensor

    def of(self, images: Tensor, mode: BNMode = "train") -> Output:
        """Forward of any images in a mode of :func:`ltrobust_bench.attacks.engine.crafting_mode`."""
        with crafting_mode(self.trainee.network, mode):
            return self._forward(images)

    def companion(self, images: Tensor) -> Output:
        """Train-mode forward of any images through the companion, of the two batches once."""
        if self.trainee.beside is None:
            raise ContractError("this method has no companion: it is a part of Method, the head of a second network.")
        found = self._by_companion.get(id(images)) or self._forward(images, self.trainee.beside)
        if images is self.x or images is self.x_adv:
            self._by_companion[id(images)] = found
        return found

    @cached_property
    def clean(self) -> Output:
        """Train-mode forward of the clean batch."""
        return self._forward(self.x)

    @cached_property
    def adversarial(self) -> Output:
        """Train-mode forward of the adversarial batch."""
        return self._forward(self.x_adv)

    @cached_property
    def _after(self) -> Output:
        with torch.no_grad():
            return self._forward(self.x_adv)

    def after_update(self) -> Output:
        """Train-mode forward of the adversarial batch after the update, without gradient, computed once."""
        return self._after

    def _listed(self, forwards: list[Forward]) -> list[Forward]:
        """The recipe's forwards without those of an adversarial batch that this epoch does not have."""
        crafts = self.trainee.method.crafts(self.epoch, self.epochs)
        return [name for name in forwards if crafts or name != "adv"]

    def _run_forwards(self) -> None:
        """Train-mode forwards in the recipe's order; repeated ones only move the running statistics."""
        seen = set()
        for name in self._listed(self.trainee.recipe.bn_forwards):
            attribute = "adversarial" if name == "adv" else "clean"
            if attribute not in seen:
                getattr(self, attribute)
                seen.add(attribute)
            else:
                with torch.no_grad():
                    self._forward(self.x_adv if name == "adv" else self.x)

    def update(self) -> Tensor:
        """Outer loss, backward, optimiser step, and what follows it. Returns the loss, detached, scalar.

        Raises:
            LTBenchError: if the batch does not fit in memory.
            ContractError: if a part of the method wrote into what it was given.
        """
        with whole(len(self.x), self.x.device):
            loss = self._update()
        for name, tensor, version in self._given:
            if tensor._version != version:
                raise ContractError(f"a part of the method wrote into {name}, which it may only read; copy it.")
        return loss

    def _update(self) -> Tensor:
        network, optimizer = self.trainee.network, self.trainee.optimizer
        for trained in self.trainee.networks.values():
            trained.train()
        for plugin in self.trainee.plugins:
            plugin.before_loss(PluginView(self))
        self._run_forwards()
        loss = self._loss()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        for plugin in reversed(self.trainee.plugins):
            plugin.after_update(PluginView(self))
        for name in self._listed(self.trainee.recipe.bn_forwards_after):
            if name == "adv":
                self.after_update()
            else:
                with torch.no_grad():
                    self._forward(self.x)
        for memory in self.trainee.memories.values():
            memory.on_step_end(OutputsView(self), self.y, network)
        return loss.detach()
