"""A copy of a network for attacks: the same function in eval mode up to rounding, computed faster.

Batch norm in eval mode is an affine map of each channel, so it is folded into the convolution before it; the copy has
no parameter gradients, keeps channels innermost in memory, and can compute 3x3 convolutions by Winograd's method or
everything in bfloat16.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from ltrobust_bench.compute import winograd
from ltrobust_bench.compute.memory import out_of_memory
from ltrobust_bench.compute.precision import full_float32
from ltrobust_bench.compute.sharing import GlobalBatchNorm
from ltrobust_bench.errors import UsageError

BatchNorm = nn.modules.batchnorm._BatchNorm
Kind = Literal["folded", "winograd", "bf16"]
"""``folded``: batch norm folded; ``winograd``: also Winograd's method; ``bf16``: folded, in bfloat16."""
TOLERANCE = {"folded": 1e-3, "winograd": 1e-2, "bf16": 0.5}
"""How far the copy's logits may be from the network's, as a share of their largest: far above rounding, far below what
a wrong fold does."""
CLOSELY_WATCHED, WATCHED = 8, 50
"""A float32 copy is compared with the network when it is made, at the first refreshes, and at one of so many later
ones: what goes wrong as training moves the network does not show in a fresh one, whose batch norm does nothing. One in
bfloat16 is compared when it is made only: in a wild start of training rounding alone comes near its tolerance."""
INSTEAD = "attack the network itself (--crafting network, --attack-search network)."


class _Fold(NamedTuple):
    """A convolution of the model, the batch norm that is folded into it, and where the copy keeps the result."""

    convolution: nn.Conv2d
    norm: nn.modules.batchnorm._BatchNorm | None
    into: nn.Conv2d | winograd.WinogradConv


def norms_after(model: nn.Module, x: Tensor) -> dict[str, str]:
    """Name of the batch norm that takes what a convolution gives, and takes it alone, by the convolution's name.

    Found by watching one forward of ``x`` and its graph, in which only plain modules are looked at (:func:`_plain`).
    """
    made: dict[Node, str] = {}
    taken: dict[Node, str] = {}
    runs: Counter[str] = Counter()

    def after_convolution(name: str, output: Tensor) -> None:
        runs[name] += 1
        if output.grad_fn is not None:
            made[output.grad_fn] = name

    def before_norm(name: str, given: Tensor) -> None:
        runs[name] += 1
        if given.grad_fn is not None:
            taken[given.grad_fn] = name

    hooks = []
    for name, module in model.named_modules():
        if not _plain(module):
            continue
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(lambda m, i, o, name=name: after_convolution(name, o)))
        elif isinstance(module, BatchNorm) and module.running_var is not None:
            hooks.append(module.register_forward_pre_hook(lambda m, i, name=name: before_norm(name, i[0])))
    try:
        with torch.enable_grad():
            logits = model(x.detach().clone().requires_grad_(True))
    finally:
        for hook in hooks:
            hook.remove()
    uses = _uses(logits.grad_fn)
    pairs = {made[node]: norm for node, norm in taken.items() if node in made and uses[node] == 1}
    return {conv: norm for conv, norm in pairs.items() if runs[conv] == runs[norm] == 1}


def _plain(module: nn.Module) -> bool:
    """Whether a module computes what its class says with the weights that it shows: no class of somebody's own, no
    parametrised weights (they have a class of their own, too), no hooks."""
    hooked = module._forward_hooks or module._forward_pre_hooks
    return type(module) in (nn.Conv2d, nn.BatchNorm2d, nn.SyncBatchNorm, GlobalBatchNorm) and not hooked


def _uses(end: Node | None) -> Counter[Node]:
    """How many operations take the result of each one, in the graph that leads to ``end``."""
    uses: Counter[Node] = Counter()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        for parent, _ in node.next_functions if node is not None else ():
            if parent is not None:
                uses[parent] += 1
                if uses[parent] == 1:
                    waiting.append(parent)
    return uses


class StandIn(nn.Module):
    """A copy of ``model`` for attacks; it follows the model's weights when it is told to :meth:`refresh`.

    Args:
        model: pixels to logits, in eval mode.
        x: some images [B, channels, height, width], to see how it is built.
        kind: see :data:`Kind`.

    Raises:
        UsageError: if there is no copy, or it does not give the model's logits; :meth:`refresh` looks again.
    """

    def __init__(self, model: nn.Module, x: Tensor, kind: Kind) -> None:
        super().__init__()
        self.kind, self.given = kind, next(model.parameters(), x).dtype
        self.dtype = torch.bfloat16 if kind == "bf16" else self.given
        self._model, self._images = (model,), x.detach().clone()  # in a tuple it is no part of this module
        self._refreshed = 0
        try:
            self._build(model, x)
        except (RuntimeError, AttributeError, TypeError, ValueError) as error:
            if out_of_memory(error):
                raise
            raise UsageError(
                f"there is no {kind} copy of this network ({' '.join(str(error).split())[:200]}); {INSTEAD}"
            ) from None

    def _build(self, model: nn.Module, x: Tensor) -> None:
        self.twin = copy.deepcopy(model).eval().requires_grad_(False)
        self.twin = self.twin.to(self.dtype).to(memory_format=torch.channels_last)
        norms = norms_after(model, x)
        self._folds = [
            self._fold(name, norms.get(name))
            for name, module in list(self.twin.named_modules())
            if isinstance(module, nn.Conv2d) and (name in norms or self._by_winograd(module))
        ]
        filled = {id(value) for fold in self._folds for value in _tensors(fold.into).values()}
        theirs = _tensors(model)
        self._copied = [(own, theirs[n]) for n, own in _tensors(self.twin).items() if id(own) not in filled]
        self.refresh()

    def _by_winograd(self, convolution: nn.Conv2d) -> bool:
        return self.kind == "winograd" and _plain(convolution) and winograd.fits(convolution)

    def _fold(self, name: str, norm: str | None) -> _Fold:
        """Put a convolution with bias in the place of a convolution and its batch norm."""
        model, into = self._model[0], cast(nn.Conv2d, self.twin.get_submodule(name))
        original = cast(nn.Conv2d, model.get_submodule(name))
        if norm is not None:
            self._replace(self.twin.get_submodule(norm), nn.Identity())
        folded = None if norm is None else cast(nn.modules.batchnorm._BatchNorm, model.get_submodule(norm))
        if self._by_winograd(into):
            replacement = winograd.WinogradConv(into)
            self._replace(into, replacement)
            return _Fold(original, folded, replacement)
        # Tensors of its own: the model's may be shared with another convolution, which is followed by another norm.
        into.weight = nn.Parameter(torch.empty_like(into.weight), requires_grad=False)
        into.bias = nn.Parameter(into.weight.new_empty(into.out_channels), requires_grad=False)
        return _Fold(original, folded, into)

    def _replace(self, module: nn.Module, by: nn.Module) -> None:
        """Put another module in the place of one of the copy's, under all of its names."""
        for parent in list(self.twin.modules()):
            for name, child in list(parent._modules.items()):
                if child is module:
                    setattr(parent, name, by)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the model's present weights and running statistics.

        Raises:
            UsageError: if the copy does not give the model's logits, where that is looked at.
        """
        for convolution, norm, into in self._folds:
            weight, bias = _folded(convolution, norm)
            if isinstance(into, winograd.WinogradConv):
                into.load(weight, bias)
            else:
                into.weight.copy_(weight)
                cast(Tensor, into.bias).copy_(bias)
        for own, theirs in self._copied:
            own.copy_(theirs)
        self._refreshed += 1
        watched = self._refreshed <= CLOSELY_WATCHED or self._refreshed % WATCHED == 0
        if self._refreshed == 1 or (watched and self.kind != "bf16"):
            self._verify(self._images)

    @torch.no_grad()
    def _verify(self, x: Tensor) -> None:
        with full_float32():  # TF32 rounds more coarsely than a float32 copy may differ
            wanted, got = self._model[0](x), self(x)
        if not torch.isfinite(wanted).all():
            return  # the network's own trouble: whoever uses its logits says so
        distance = float((got - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
        if not distance <= TOLERANCE[self.kind]:
            raise UsageError(
                f"the {self.kind} copy of this network gives other logits (by {distance:.1e} of the largest); {INSTEAD}"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Logits of ``x`` in the model's type, shape [B, C]."""
        logits: Tensor = self.twin(x.to(self.dtype))
        return logits.to(self.given)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, by each of its names what has several."""
    named = module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)
    return {name: value for each in named for name, value in each}


def _folded(convolution: nn.Conv2d, norm: nn.modules.batchnorm._BatchNorm | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution followed by a batch norm in eval mode."""
    weight, bias = convolution.weight, convolution.bias
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    if norm is None:
        return weight, bias
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = torch.rsqrt(variance + norm.eps)
    if norm.affine:
        scale = scale * norm.weight
    bias = (bias - mean) * scale
    return weight * scale.view(-1, 1, 1, 1), bias + norm.bias if norm.affine else bias
