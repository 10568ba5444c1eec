"""Checkpoints of the official RoBal, REAT and AT-BSL repositories as models of ours.

Their networks are ours under other names. RoBal (WRN-34-10) keeps a backbone and a classifier apart and wraps both;
REAT has a ResNet-18 with sequential blocks and a WRN-28-10; AT-BSL the usual CIFAR ResNet-18 and a WRN-34-10. Which
of them a file holds is told by its names. What the head computes and what is deployed (scale, boundary adjustment,
normalisation) is the method's, with its options.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ltrobust_bench.cards import card_of
from ltrobust_bench.data.registry import dataset_spec
from ltrobust_bench.errors import CheckpointError
from ltrobust_bench.models.weights import load_strictly, read_weights
from ltrobust_bench.training.build import build_method, build_network, deployed

WRAPPED = re.compile(r"^(?:(?:model|module|backbone|classifier)\.)+")
REAT_LAYERS = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2"}
WRN_GROUPS = 3
DEPTHS = {12: "wrn-28-10", 15: "wrn-34-10"}
"""Blocks in all, and the network."""
OWN_HEAD = {
    "weight": "weight",  # RoBal's cosine classifiers hold their tensors themselves
    "bias": "bias",
    "moving_ed": "direction",
    "cla_scale": "scales",
}


def from_official(path: Path, method: str, settings: Mapping[str, Any], counts: list[int], dataset: str) -> nn.Module:
    """A model from [0, 1] pixels to logits, from an official checkpoint.

    Args:
        path: the file.
        method: whose head and inference form: a method's name, see ``ltbench list methods``.
        settings: its options that differ from the defaults of track ``fixed``.
        counts: training images per label, for inference forms that use them, [C].
        dataset: its name; some options depend on it.

    Raises:
        UnknownNameError, UsageError: for an unknown method or option.
        CheckpointError: if the file is none of the known networks or does not fit the method's head.
    """
    options = card_of(method).resolve_options("fixed", settings)
    weights = _renamed(read_weights(path))
    network_name = _network(weights, path)
    device = torch.device("cpu")
    parts, data = build_method(method, options, counts, dataset, 1, device)
    network = build_network(network_name, dataset_spec(dataset).shape, len(counts), parts)
    own = network.state_dict()
    load_strictly(network, {n: v for n, v in weights.items() if n in own or not _idle(n, v, weights)}, path)
    return deployed(parts, network, data)


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under our names; a name that no rule knows stays, and fails the strict loading."""
    plain = {WRAPPED.sub("", name): value for name, value in weights.items()}
    per_group = 1 + max((int(m[1]) for n in plain if (m := re.match(r"block1\.layer\.(\d+)\.", n))), default=-1)
    # The first WRN repositories register a second, unused copy of the first group.
    used = {n: v for n, v in plain.items() if not n.startswith("sub_block1.")}
    ours = {_our_name(name, per_group): value for name, value in used.items()}
    if "head.direction" in ours:
        ours["head.direction"] = ours["head.direction"].flatten()
    return ours


def _our_name(name: str, per_group: int) -> str:
    if name in OWN_HEAD:
        return f"head.{OWN_HEAD[name]}"
    first, _, rest = name.partition(".")
    if first in ("fc", "linear"):
        return f"head.{rest}"
    if m := re.fullmatch(r"conv1\.([01])\.(.+)", name):  # REAT's stem
        return f"backbone.{'conv1' if m[1] == '0' else 'bn1'}.{m[2]}"
    if m := re.fullmatch(r"layer(\d)\.(\d)\.residual_function\.([0134])\.(.+)", name):
        return f"backbone.groups.{int(m[1]) - 1}.{m[2]}.{REAT_LAYERS[m[3]]}.{m[4]}"
    if m := re.fullmatch(r"layer(\d)\.(\d)\.(.+)", name):
        return f"backbone.groups.{int(m[1]) - 1}.{m[2]}.{m[3]}"
    if m := re.fullmatch(rf"block([1-{WRN_GROUPS}])\.layer\.(\d+)\.(.+)", name):
        block = (int(m[1]) - 1) * per_group + int(m[2])
        return f"backbone.blocks.{block}.{m[3].replace('convShortcut', 'shortcut')}"
    return f"backbone.{name}" if first in ("conv1", "bn1") else name


def _network(weights: Mapping[str, Tensor], path: Path) -> str:
    """Which of our networks the names belong to."""
    if "backbone.conv1.weight" in weights:
        if any(n.startswith("backbone.groups.") for n in weights):
            return "resnet18"
        blocks = 1 + max(_blocks(weights), default=-1)
        if blocks in DEPTHS:
            return DEPTHS[blocks]
    seen = ", ".join(sorted(weights)[:4])
    raise CheckpointError(
        f"{path} is no network of the RoBal, REAT or AT-BSL repositories (ResNet-18, WRN-28-10, WRN-34-10): it holds "
        f"{seen} and so on; load it with --torch MODULE:FACTORY --weights FILE."
    )


def _blocks(weights: Mapping[str, Tensor]) -> Iterator[int]:
    for name in weights:
        if m := re.match(r"backbone\.blocks\.(\d+)\.", name):
            yield int(m[1])


def _idle(name: str, value: Tensor, weights: Mapping[str, Tensor]) -> bool:
    """Whether a tensor that our head does not have takes no part in the official forward either."""
    return (
        name == "head.direction"  # recorded by every cosine head, used by TDE alone
        or (name == "head.bias" and (not value.any() or "head.scales" in weights))  # scaled heads drop it
        or (name == "head.scales" and bool((value == 1).all()))
    )
