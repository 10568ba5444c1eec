"""Passes through a network, divided between the ranks of a run, as if one device had made them.

A batch is whole on every rank before a network and behind it. In between each rank has its part: the images are cut,
the features are put together again. So losses, memories, samplers and plug-ins see the whole batch on every rank, and
none of them knows of ranks. Three sums over all ranks make it exact:

- behind the network, of what each rank has of the output, 0 elsewhere; the gradient of the whole loss is known to every
  rank, so nothing is exchanged on the way back;
- before the network, on the way back, of the gradient with respect to the images, for attacks;
- of the gradients with respect to the backbone's parameters, whenever they are computed.

Batch norm takes its statistics over the whole batch, by two more sums a layer. Heads are computed by every rank, on the
whole batch.

torch's DistributedDataParallel shares a loss, not a network: each rank would have its own loss on its own images, which
is something else wherever a loss compares images of a batch (REAT, TAET, ALP), counts classes or weighs by the batch's
weights; and it does not support ``torch.autograd.grad``, by which AWP finds its direction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ltrobust_bench.api import Network
from ltrobust_bench.compute import ranks
from ltrobust_bench.errors import UsageError


def _total(x: Tensor) -> Tensor:
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


class _Sum(torch.autograd.Function):
    """The sum over all ranks on the way ``there``, on the way ``back``, or both; the identity on the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: bool, back: bool) -> Tensor:
        ctx.back = back
        return _total(x) if there else x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return _total(gradient) if ctx.back else gradient, None, None


def _cut(x: Tensor, training: bool) -> Tensor:
    """This rank's part of a whole batch [B, ...]."""
    own = ranks.part(len(x))
    if own.start == own.stop and not training:
        own = slice(0, 1)  # not every network takes no image at all; in train mode one more would be in the statistics
    x = _Sum.apply(x, False, True)  # type: ignore[no-untyped-call]
    return x[own]


def _together(output: Tensor, images: int) -> Tensor:
    """The output [B, ...] for a whole batch of so many images, from each rank's part."""
    own = ranks.part(images)
    output = output[: own.stop - own.start]
    around = [0, 0] * (output.dim() - 1) + [own.start, images - own.stop]
    return _Sum.apply(F.pad(output, around), True, False)  # type: ignore[no-any-return, no-untyped-call]


class Shared(nn.Module):
    """A model in eval mode, each batch of which is divided between the ranks.

    Args:
        model: images [B, ...] to logits [B, C].
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a whole batch, on every rank."""
        return _together(self.model(_cut(x, self.model.training)), len(x))


def shared(model: nn.Module) -> nn.Module:
    """A model in eval mode, divided if there are several ranks; else as it is."""
    return Shared(model) if ranks.count() > 1 else model


def share(network: Network) -> None:
    """Divide what passes through a network in training, whoever calls it, and through copies of it.

    That is what passes through its backbone as a whole: a part of a method that calls some of its layers has every rank
    compute them.

    Raises:
        UsageError: if the backbone does something that several ranks would do otherwise than one.
    """
    if ranks.count() == 1:
        return
    for module in network.backbone.modules():
        _prepare(module)
    # Functions, unlike methods, are what they were in a deep copy of the network.
    network.backbone.register_forward_pre_hook(_enter)
    network.backbone.register_forward_hook(_leave)
    network.head.register_forward_pre_hook(_enter_head)


def _enter(backbone: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
    _hooked(backbone, _total)
    backbone.images_in_batch = len(given[0])  # type: ignore[assignment]
    return (_cut(given[0], backbone.training),)


def _leave(backbone: nn.Module, given: Any, output: Tensor) -> Tensor:
    return _together(output, backbone.images_in_batch)  # type: ignore[arg-type]


def _enter_head(head: nn.Module, given: Any) -> None:
    _hooked(head, _mean)


def _mean(gradient: Tensor) -> Tensor:
    """Every rank has the whole gradient; on a GPU sums in no fixed order can have rounded it otherwise on each."""
    return _total(gradient) / ranks.count()


def _hooked(module: nn.Module, hook: Callable[[Tensor], Tensor]) -> None:
    """Have a hook on the gradient of each parameter; a copy's have none, nor has one that was not trained before."""
    for parameter in module.parameters():
        if parameter.requires_grad and hook not in (parameter._backward_hooks or {}).values():
            parameter.register_hook(hook)


class GlobalBatchNorm(nn.SyncBatchNorm):
    """Batch norm over the images of all ranks: torch's, which computes on GPUs only, and the same on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, ...] normalised by the whole batch's statistics in train mode, by the running ones else."""
        if x.is_cuda or not self.training:
            return super().forward(x)
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        others = [dim for dim in range(x.dim()) if dim != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        values = _everywhere(wide.new_tensor([x.numel() // x.shape[1]]))
        mean = _everywhere(wide.sum(others)) / values
        centred = wide - mean.view(shape)
        variance = _everywhere(centred.square().sum(others)) / values
        if self.track_running_stats and self.running_mean is not None:
            self._follow(mean.detach(), variance.detach() * values / (values - 1))
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics."""
        assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)


def _everywhere(value: Tensor) -> Tensor:
    return _Sum.apply(value, True, True)  # type: ignore[no-any-return, no-untyped-call]


def _prepare(module: nn.Module) -> None:
    """Let a batch norm look at all ranks' images, in place; refuse what several ranks would compute otherwise."""
    kind = type(module).__name__
    if isinstance(module, _BatchNorm):
        if type(module) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm):
            raise UsageError(f"this network has a batch norm of its own ({kind}), which one device alone can compute.")
        module.__class__ = GlobalBatchNorm
        module.process_group = None  # type: ignore[assignment]
    elif (isinstance(module, _DropoutNd) and module.p) or kind == "DropPath":
        raise UsageError(f"this network draws random numbers ({kind}), which one device alone can do reproducibly.")
