"""Running statistics of batch norm, taken anew when training is over: averaged weights have others than those that were
gathered on the way."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ltrobust_bench.compute.memory import whole
from ltrobust_bench.data.loader import Batch
from ltrobust_bench.training.step import Step, Trainee


def recalibrate(trainee: Trainee, batches: Iterable[Batch], noise: torch.Generator, epoch: int) -> None:
    """Give the backbone's batch norms the mean statistics of some batches, as the recipe's ``recalibrate_bn`` says:
    ``none`` leaves them alone, ``clean`` passes the images as they are, ``adversarial`` as the method crafts them on
    the network as it is before. What is passed is counted.

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
    norms = [norm for norm in twin.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    for norm in norms:
        norm.reset_running_stats()
    seen = 0
    for batch in batches:
        step = Step(trainee, *batch, epoch=epoch, epochs=epoch)
        images = step.craft(generator=noise) if kind == "adversarial" else step.x
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
