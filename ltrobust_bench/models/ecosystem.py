"""Networks of other libraries, timm's and torchvision's, as backbones: untrained, without their classifier."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.models.registry import Shape, require_size

LEAST, LEAST_TOKENS = 32, 8
"""Pixels on a side that a convolutional network, and a transformer, is given at least."""
SIDE = 8
"""Patches on a side of a small image at least: as many as a transformer for 224 pixels has of 28."""


class Backbone(nn.Module):
    """A network of another library that gives features."""

    def __init__(self, network: nn.Module, shape: Shape) -> None:
        super().__init__()
        self.network = network
        training = network.training
        with torch.no_grad():
            self.features = int(network.eval()(torch.zeros(1, *shape)).shape[1])
        network.train(training)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


def patch_side(side: int) -> int:
    """Pixels on a side of a transformer's patches, for images smaller than it was made for: the largest power of two up
    to 16 that divides the image and leaves 8 patches on a side (32 pixels: 4)."""
    return max(p for p in (1, 2, 4, 8, 16) if side % p == 0 and (p == 1 or side // p >= SIDE))


def timm_network(name: str, shape: Shape) -> Backbone:
    """A network of timm (Wightman, 2019) by its name there.

    A transformer is built for the images' size, for images smaller than its own with smaller patches, see
    :func:`patch_side`. Others take the size as it is.

    Raises:
        UsageError: if timm is missing, has no such network, or the images are too small.
    """
    if find_spec("timm") is None:
        raise UsageError("networks of timm need it: pip install 'ltrobust-bench[timm]'.")
    import timm

    if not timm.is_model(name):
        raise UnknownNameError("network of timm", name, timm.list_models())
    stated, (channels, height, width) = timm.get_pretrained_cfg(name), shape
    size: dict[str, Any] = {}
    tokens = stated is not None and stated.fixed_input_size
    require_size(f"timm:{name}", shape, LEAST_TOKENS if tokens else LEAST)
    if tokens:
        assert stated is not None
        size = {"img_size": (height, width)}
        if min(height, width) < stated.input_size[-1]:
            size["patch_size"] = patch_side(min(height, width))
    return Backbone(timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels, **size), shape)


def torchvision_network(name: str, shape: Shape) -> Backbone:
    """A classifier of torchvision by its name there; its last linear layer is left out.

    Raises:
        UsageError: if torchvision has no such classifier, the images have no three channels or are too small.
    """
    from torchvision import models as theirs

    if name not in theirs.list_models(module=theirs):
        raise UnknownNameError("network of torchvision", name, theirs.list_models(module=theirs))
    if shape[0] != 3:
        raise UsageError(
            f"model torchvision:{name} takes images of 3 channels, and these have {shape[0]}: choose timm's."
        )
    require_size(f"torchvision:{name}", shape, LEAST)
    size = {"image_size": shape[-1]} if name.startswith("vit_") else {}
    network = theirs.get_model(name, weights=None, **size)
    last = [at for at, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, attribute = last.rpartition(".")
    setattr(network.get_submodule(parent), attribute, nn.Identity())
    return Backbone(network, shape)
