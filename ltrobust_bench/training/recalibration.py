"""Running statistics of batch norm, taken anew when training is over: averaged weights have others than those that were
gathered on the way."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltrobust_bench.compute.memory import whole
from ltrobust_bench.data.loader import Batch
from ltrobust_bench.training.step import Step, Trainee


def running_norms(module: nn.Module) -> list[_BatchNorm]:
    """The batch norms of a module that have running statistics."""
    return [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]


def recalibrate(trainee: Trainee, batches: Iterable[Batch], noise: torch.Generator, epoch: int) -> None:
    """Give the backbone's batch norms the mean statistics of some batches, as the recipe's ``recalibrate_bn`` says:
    ``none`` leaves them alone, ``clean`` passes the images as they were drawn, ``adversarial`` as the method makes and
    crafts them on the network as it is before. What is passed is counted.

    Args:
        batches: training images.
        noise: of the attack's starts.
        epoch: the last one, in which the images are crafted.
    """
    kind = trainee.recipe.recalibrate_bn
    if kind == "none":
        return
    # The copy counts, too; while it gathers its statistics the network is attacked with those that it had.
    twin = copy.deepcopy(trainee.network.backbone).requires_grad_(False).train()
    norms = running_norms(twin)
    for norm in norms:
        norm.reset_running_stats()
    before = {name: buffer.clone() for name, buffer in trainee.network.named_buffers()}
    seen = 0
    for batch in batches:
        images = batch.x
        if kind == "adversarial":
            images = Step(trainee, *batch, epoch=epoch, epochs=epoch).craft(generator=noise)
            for name, buffer in trainee.network.named_buffers():
                buffer.copy_(before[name])  # a pass in train mode before the attack, or an attack in it, moves them
        seen += len(images)
        for norm in norms:
            norm.momentum = len(images) / seen
        with whole(len(images), images.device), torch.no_grad(), trainee.forwards.arithmetic(images):
            twin(images)
    found = twin.state_dict()
    with torch.no_grad():
        for name, norm in trainee.network.backbone.named_modules():
            for own, buffer in norm.named_buffers() if isinstance(norm, _BatchNorm) else ():
                buffer.copy_(found[f"{name}.{own}"])
