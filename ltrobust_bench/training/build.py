"""Networks, methods and deployed models from names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ltrobust_bench.api import Group, Method, Network, Plugin, Sampler, TrainInfo
from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.errors import ContractError, UsageError
from ltrobust_bench.models.backbone import build_backbone
from ltrobust_bench.models.pretrained import Pretrained
from ltrobust_bench.models.registry import Shape
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.protocol.spec import Activation


def build_method(
    slug: str, options: Mapping[str, Any], counts: list[int], dataset: str, epochs: int, device: torch.device
) -> tuple[Method, TrainInfo]:
    """A method's parts for one training set; ``options`` may hold those of plug-ins too."""
    data = TrainInfo(torch.tensor(counts, dtype=torch.float64, device=device), dataset, epochs)
    return methods.get(slug).factory()(options, data), data


def build_plugins(slugs: list[str], options: Mapping[str, Any], data: TrainInfo) -> tuple[Plugin, ...]:
    """Plug-ins in the given order; their options are named ``<slug>.<option>``."""
    return tuple(
        plugins.get(slug).factory()(
            {k.removeprefix(f"{slug}."): v for k, v in options.items() if k.startswith(f"{slug}.")}, data
        )
        for slug in slugs
    )


def sampler_of(method: Method, plugins: Sequence[Plugin]) -> Sampler:
    """The method's sampler, and after it what plug-ins make of an epoch's order.

    Raises:
        ContractError: when it draws neither images [n] nor images and partners [2, n].
    """

    def draw(labels: np.ndarray, draws: int, epoch: int, generator: np.random.Generator) -> np.ndarray:
        order = method.sampler(labels, draws, epoch, generator)
        for plugin in plugins:
            if order.ndim == 2 and type(plugin).order is not Plugin.order:
                raise UsageError(
                    f"{type(plugin).__name__} draws images for an epoch or partners beside them, and pairs are drawn "
                    f"already; leave one of the two out."
                )
            order = plugin.order(order, labels, epoch, generator)
        if order.ndim != 1 and order.shape != (2, order.shape[-1]):
            raise ContractError(f"a sampler gave indices of shape {order.shape}; it gives [n], or [2, n] for pairs.")
        return order

    return draw


def network_of(run: RunSection, shape: Shape, method: Method) -> Network:
    """The network of a run, freshly initialised: see :func:`build_network`."""
    recipe = run.recipe
    return build_network(
        run.model, shape, len(run.train_counts), method, recipe.activation, run.pretrained, recipe.drop_path
    )


def companion_of(run: RunSection, shape: Shape, method: Method) -> Network | None:
    """The second network that a method trains beside the first, freshly initialised; None: it has none."""
    return None if method.companion is None else network_of(run, shape, replace(method, head=method.companion))


def build_network(
    model: str,
    shape: Shape,
    classes: int,
    method: Method,
    activation: Activation = "relu",
    pretrained: Pretrained | None = None,
    drop_path: float = 0.0,
) -> Network:
    """A freshly initialised network (torch's global generator) with the method's head.

    Args:
        shape: of one image: channels, height, width.
        activation: of the backbone, in the place of its ReLU.
        pretrained: weights that it will be given, for which it normalises its images.
        drop_path: rate of stochastic depth, of networks of timm.

    Raises:
        UsageError: as :func:`ltrobust_bench.models.backbone.build_backbone`.
    """
    backbone: Any  # of timm and torchvision, it can normalise
    backbone, features = build_backbone(model, shape, activation, drop_path)
    if pretrained is not None:
        backbone.normalise(pretrained.mean, pretrained.std)
    return Network(backbone, method.head(features, classes))


def inherit(network: Network, weights: Mapping[str, Tensor], parts: tuple[str, ...]) -> None:
    """Give ``network`` the weights of a finished one: the backbone's all, a head's where name and shape agree.

    Args:
        parts: ``backbone``, ``head``; the others keep their fresh start.

    Raises:
        UsageError: if nothing agrees in a part, or something is missing in the backbone.
    """
    own = network.state_dict()
    for part in parts:
        names = [n for n in own if n.startswith(f"{part}.")]
        fitting = [n for n in names if n in weights and weights[n].shape == own[n].shape]
        if not fitting or (part == "backbone" and len(fitting) < len(names)):
            raise UsageError(f"the {part} of the run it starts from does not fit this network.")
        own |= {n: weights[n] for n in fitting}
    network.load_state_dict(own)


def trained_parameters(
    network: Network, method: Method, companion: Network | None = None, weight_decay: float = 0.0
) -> list[Any]:
    """What torch's optimiser moves: what the method trains of the network, and all of a companion. The rest of the
    network is told that it needs no gradient.

    Where the method has groups, they are torch's, and a group's share of the recipe's rate is its ``lr_share``.

    Args:
        weight_decay: the recipe's, for groups with a share of it.
    """
    chosen = list(method.trains(network))
    groups = [one for one in chosen if isinstance(one, Group)]
    plain = [one for one in chosen if isinstance(one, nn.Parameter)]
    kept = {id(p) for p in [*plain, *(p for group in groups for p in group.parameters)]}
    for parameter in network.parameters():
        if id(parameter) not in kept:
            parameter.requires_grad_(False)
    plain += [] if companion is None else companion.parameters()
    if not groups:
        return plain
    apart = [{"params": list(own), "lr_share": lr, "weight_decay": decay * weight_decay} for own, lr, decay in groups]
    return [*([{"params": plain}] if plain else []), *apart]


def load_deployed(run: RunSection, shape: Shape, weights: Mapping[str, Tensor], device: torch.device) -> nn.Module:
    """The deployed model of a finished run.

    Args:
        shape: of one image: channels, height, width.

    Raises:
        RuntimeError: if the weights are not those of its network.
    """
    method, data = build_method(run.method, run.options, run.train_counts, run.dataset, run.recipe.epochs, device)
    network = network_of(run, shape, method).to(device)
    network.load_state_dict(weights)
    return deployed(method, network, data)


def deployed(method: Method, network: Network, data: TrainInfo) -> nn.Module:
    """The model that is attacked and published, in eval mode."""
    return method.deploy(network, data).eval()
