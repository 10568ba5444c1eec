"""A backbone from its name, an image's shape and the recipe's activation."""

from __future__ import annotations

from torch import nn

from ltrobust_bench.errors import LTBenchError, UsageError
from ltrobust_bench.models.registry import Shape, models
from ltrobust_bench.protocol.spec import Activation
from ltrobust_bench.terms import printable

ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


def build_backbone(
    model: str, shape: Shape, activation: Activation = "relu", drop_path: float = 0.0
) -> tuple[nn.Module, int]:
    """A freshly initialised backbone (torch's global generator), and the number D of features that it gives.

    Args:
        shape: of one image: channels, height, width.
        activation: in the place of its ReLU.
        drop_path: rate of stochastic depth, of networks of timm.

    Raises:
        UsageError: if it cannot take images of this shape, does not say how many features it gives, or has no ReLU in
            whose place another activation could be.
    """
    factory = models.get(model)
    if drop_path and not model.startswith("timm-"):
        raise UsageError(f"drop_path is a rate of networks of timm, and the network is {model}: leave it out.")
    try:
        backbone: nn.Module = factory(shape, drop_path) if drop_path else factory(shape)
    except LTBenchError:
        raise
    except Exception as error:  # noqa: BLE001 - somebody else's factory may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(
            f"model {model} cannot be built for images of shape {shape} ({printable(reason, 120)}); a factory of "
            f"networks takes this shape, (channels, height, width)."
        ) from error
    features = getattr(backbone, "features", None)
    if not isinstance(features, int):
        raise UsageError(f"model {model} has no attribute `features`, the number D of features that it gives.")
    if activation != "relu" and not _activated(backbone, ACTIVATIONS[activation]):
        raise UsageError(f"model {model} has no module nn.ReLU, in whose place activation={activation} would be.")
    return backbone, features


def _activated(module: nn.Module, activation: type[nn.Module]) -> int:
    """Put an activation in the place of every ReLU of a network; how many there were."""
    found = 0
    for name, child in module._modules.items():
        if isinstance(child, nn.ReLU):
            setattr(module, name, activation())
            found += 1
        elif child is not None:
            found += _activated(child, activation)
    return found
