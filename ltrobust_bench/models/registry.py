"""Which backbones there are: functions from the shape of an image, (channels, height, width), to a module with an
attribute ``features`` (D), which maps images [B, channels, height, width] to features [B, D].

A network that cannot take the size says so when it is asked for: :func:`require_size`, or a ``UsageError`` of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from ltrobust_bench.errors import UsageError
from ltrobust_bench.registry import Registration, Registry

Shape = tuple[int, int, int]
"""Of one image: channels, height, width."""
_HERE = "ltrobust_bench/models/registry.py"


def _built_in() -> list[Registration]:
    base = "ltrobust_bench.models"
    return [
        Registration(
            "small", f"{base}.small:small", "three convolutions, 64 features, for 8x8 and 28x28 images", _HERE
        ),
        Registration(
            "resnet8", f"{base}.resnet:resnet8", "ResNet-8 at half the resolution, 96 features, for CPUs", _HERE
        ),
        Registration("resnet18", f"{base}.resnet:resnet18", "ResNet-18 with CIFAR stem, 512 features", _HERE),
        Registration("preact-resnet18", f"{base}.resnet:preact_resnet18", "PreActResNet-18, 512 features", _HERE),
        Registration("wrn-28-10", f"{base}.wide_resnet:wrn_28_10", "WideResNet-28-10, 640 features", _HERE),
        Registration("wrn-34-10", f"{base}.wide_resnet:wrn_34_10", "WideResNet-34-10, 640 features", _HERE),
    ]


def require_size(name: str, shape: Shape, least: int) -> None:
    """Refuse images that a network cannot take.

    Args:
        least: pixels of the shorter side.

    Raises:
        UsageError: for smaller ones.
    """
    _, height, width = shape
    if min(height, width) < least:
        raise UsageError(
            f"model {name} needs images of {least}x{least} pixels or more, and these have {height}x{width}: choose "
            f"another with --model."
        )


_THEIRS = re.compile("(timm|torchvision)[-:]([a-z0-9][a-z0-9._]*)")


class Networks(Registry[Callable]):
    """Our networks and packages', by name, and those of timm and torchvision, which are too many to list:
    ``timm:vit_tiny_patch16_224``, in records ``timm-vit_tiny_patch16_224``."""

    def entry(self, name: str) -> Registration:
        theirs = _THEIRS.fullmatch(str(name).lower())
        if theirs is None or super().__contains__(name):
            return super().entry(name)
        library, inner = theirs.groups()
        return Registration(f"{library}-{inner}", partial(_build, library, inner), f"{inner} of {library}", library)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or _THEIRS.fullmatch(str(name)) is not None


def _build(library: str, name: str, shape: Shape, *more: Any) -> Any:
    from ltrobust_bench.models import ecosystem

    return getattr(ecosystem, f"{library}_network")(name, shape, *more)


models = Networks("model", discover=_built_in, entry_point_group="ltrobust_bench.models", base=Callable)
