"""What must hold before a graph stands for a network: its backbone is the registry's, with the network's weights in its
sizes; what comes after sees features only, each image by itself; and it gives the logits that the module gave."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ltrobust_bench.api import Network
from ltrobust_bench.compute.precision import full_float32
from ltrobust_bench.errors import CheckFailed
from ltrobust_bench.judge.export import graph_of
from ltrobust_bench.judge.graph import CONSTANT, IMAGE, NODE, WEIGHT, Graph, GraphFile, Node, probes
from ltrobust_bench.judge.interpret import Interpreted
from ltrobust_bench.judge.operations import tensors
from ltrobust_bench.models.backbone import build_backbone
from ltrobust_bench.models.registry import Shape, models
from ltrobust_bench.protocol.spec import Activation

BACKBONE = "backbone."
"""Beginning of the names of a backbone's weights."""
LONGEST = 50
"""Operations after the backbone; the longest tail of ours has fifteen."""
CONSTANTS = 2
"""Numbers for each class that are no weights: a factor and a shift of its logit."""
WIDEST = 1_000_000
"""Numbers of a result after the backbone, for each image."""
TOLERANCE = 1e-4
"""How far logits may be from the module's, as a share of the largest: other machines round otherwise."""


class Backbone(NamedTuple):
    """A network of the registry up to its features, by name, and the recipe's activation."""

    model: str
    activation: Activation = "relu"

    @property
    def text(self) -> str:
        """In words."""
        return self.model if self.activation == "relu" else f"{self.model} with {self.activation}"


def judged(file: GraphFile, weights: Mapping[str, Tensor], backbone: Backbone, shape: Shape, classes: int) -> nn.Module:
    """The network that a graph and a network's own weights are, on the CPU; nothing of its author's is run.

    Args:
        file: the graph, as :func:`~ltrobust_bench.judge.graph.read_graph` found it in order.
        weights: of the network's file, whose digest is the record's.
        backbone: which its record names.
        shape: of one image.
        classes: C.

    Raises:
        CheckFailed: in one line, if the graph is not that backbone with some operations after it.
    """
    known = operations_of(backbone, shape)
    start = len(known.nodes)
    if file.graph.nodes[:start] != list(known.nodes):
        raise CheckFailed(f"its graph does not begin with the operations of {backbone.text} on the image")
    tail = file.graph.nodes[start:]
    used = [name for node in file.graph.nodes for name in tensors(node.op, node.given)]
    missing = {name.removeprefix(WEIGHT) for name in used if name.startswith(WEIGHT)} - weights.keys()
    if missing:
        raise CheckFailed(f"its graph uses a weight that its network has not: {min(missing)}")
    _check_weights(weights, known, backbone.text)
    values = {name: weights[name.removeprefix(WEIGHT)] for name in used if name.startswith(WEIGHT)}
    values |= {f"{CONSTANT}{name}": value for name, value in file.constants.items()}
    _check_tail(tail, start, file.constants, classes)
    alone, head = _alone(tail, start, values)
    _check_sizes(alone, head, start, known.features, classes)
    _check_apart(Interpreted(alone, head), known.features)
    module = Interpreted(file.graph.nodes, values).eval()
    _check_logits(module, file.logits, shape)
    return module


def tail_of(graph: Graph, backbone: Backbone, shape: Shape) -> list[str]:
    """What a graph computes after its backbone, a line for each operation: for whoever reads it."""
    start = len(operations_of(backbone, shape).nodes)
    lines = []
    for number, node in enumerate(graph.nodes[start:], start):
        given = ["features" if value == f"{NODE}{start - 1}" else value for value in node.given]
        lines.append(f"{NODE}{number} = {node.op}({', '.join(str(value) for value in given)})")
    return lines


@dataclass(frozen=True)
class Operations:
    """What a network of this package is up to its features.

    Attributes:
        nodes: its operations.
        features: D, how many there are.
        sizes: shape and type of each of its weights, by name.
    """

    nodes: tuple[Node, ...]
    features: int
    sizes: Mapping[str, tuple[torch.Size, torch.dtype]]


@lru_cache(maxsize=8)
def operations_of(backbone: Backbone, shape: Shape) -> Operations:
    """A network of this package up to its features.

    Raises:
        CheckFailed: for a network of another package, whose code is not run here.
    """
    model, activation = backbone
    target = models.entry(model).target
    if not (isinstance(target, str) and target.startswith("ltrobust_bench.models.")):
        raise CheckFailed(f"network {model} is of another package, whose code the judge does not run")
    with torch.random.fork_rng(devices=[]):
        module, features = build_backbone(model, shape, activation)
    network = Network(module, nn.Identity())
    weights = network.state_dict()
    graph, _ = graph_of(network, shape, weights)
    return Operations(tuple(graph.nodes), features, {name: (w.shape, w.dtype) for name, w in weights.items()})


def _check_weights(weights: Mapping[str, Tensor], known: Operations, text: str) -> None:
    """See that a backbone is no wider than the network that it bears the name of: operations say nothing of sizes."""
    for name, (size, kind) in known.sizes.items():
        seen = weights.get(name)
        if seen is None or seen.shape != size or seen.dtype != kind:
            found = "nothing" if seen is None else f"{tuple(seen.shape)}, {seen.dtype}"
            raise CheckFailed(f"its network is no {text}: {name} is {tuple(size)}, {kind}, there, and {found} here")


def _check_tail(tail: list[Node], start: int, constants: Mapping[str, Tensor], classes: int) -> None:
    """See that what comes after the backbone is short, and sees features, the head's weights and few constants."""
    if not 1 <= len(tail) <= LONGEST:
        raise CheckFailed(f"its graph has {len(tail)} operations after its backbone (allowed: 1 to {LONGEST})")
    numbers = sum(value.numel() for value in constants.values())
    if numbers > CONSTANTS * classes:
        raise CheckFailed(
            f"its graph has {numbers} numbers that are no weights (allowed: {CONSTANTS} for each class); "
            "what is more belongs into the network, whose digest covers it"
        )
    for node in tail:
        for name in tensors(node.op, node.given):
            inside = name.startswith(NODE) and int(name.removeprefix(NODE)) < start - 1
            if inside or name == IMAGE or name.startswith(f"{WEIGHT}{BACKBONE}"):
                raise CheckFailed("its graph looks past the features into the backbone or at the image")


def _alone(tail: list[Node], start: int, values: Mapping[str, Tensor]) -> tuple[list[Node], dict[str, Tensor]]:
    """What comes after the backbone as a graph of its own, from features to logits, and the tensors that it needs."""
    names = {f"{NODE}{number}": f"{NODE}{number - start + 1}" for number in range(start, start + len(tail))}
    names[f"{NODE}{start - 1}"] = IMAGE  # features take the image's place
    moved = [node.model_copy(update={"given": [_renamed(v, names) for v in node.given]}) for node in tail]
    shifted = [Node(op="relu.default", given=[IMAGE]), *moved]  # so that results keep their numbers
    return shifted, {name: v for name, v in values.items() if not name.startswith(f"{WEIGHT}{BACKBONE}")}


def _check_sizes(alone: list[Node], head: Mapping[str, Tensor], start: int, features: int, classes: int) -> None:
    """See what sizes come out, without computing: for two and for three images."""
    sizes = {name: value.to("meta") for name, value in head.items()}
    for images in (2, 3):
        for end in range(2, len(alone) + 1):
            result = _sized(Interpreted(alone[:end], sizes), torch.empty(images, features, device="meta"))
            if result.numel() > images * WIDEST:
                raise CheckFailed(f"operation {start + end - 2} of its graph makes too much of {images} images")
        if result.shape != (images, classes) or result.dtype != torch.float32:
            raise CheckFailed(f"its graph makes {tuple(result.shape)}, {result.dtype}, of {images} images")


def _check_apart(tail: nn.Module, features: int) -> None:
    """See that no image's logits depend on another image of its batch, or an attack on one would move the others.

    Which numbers a result is made of is the same for all values (no operation on the list chooses), and what is not a
    number makes none of whatever is made of it. So one image's features become NaN, and the others' logits must stay
    numbers: that holds for all images, adversarial ones, too, and not just for some that were tried.
    """
    ordinary = 0.5 + torch.rand(3, features, generator=torch.Generator().manual_seed(21))
    for image in range(len(ordinary)):
        spoiled = ordinary.clone()
        spoiled[image] = math.nan
        with torch.no_grad():
            nothing = _sized(tail, spoiled).isnan().any(dim=1)
        nothing[image] = False
        if bool(nothing.any()):
            raise CheckFailed("its graph mixes images: the logits of one depend on the others of its batch")


def _renamed(value: object, names: Mapping[str, str]) -> object:
    return names.get(value, value) if isinstance(value, str) else value


def _sized(module: nn.Module, x: Tensor) -> Tensor:
    try:
        found: Tensor = module(x)
    except Exception as error:  # noqa: BLE001 - sizes that do not fit show in many ways
        raise CheckFailed(f"its graph cannot be computed ({' '.join(str(error).split())[:200]})") from None
    return found


def _check_logits(module: nn.Module, logits: Tensor, shape: Shape) -> None:
    """See that a graph gives the logits that its module gave where it was exported, and that it gives each image the
    same ones alone, in a batch of several sizes, and among others in another order."""
    batches = probes(shape)
    images = torch.cat(batches)
    with torch.no_grad(), full_float32():
        here = torch.cat([module(batch) for batch in batches])
        alone = torch.cat([module(image[None]) for image in images])
        turned = module(images.flip(0)).flip(0)
    if logits.shape != here.shape or logits.dtype != here.dtype:
        raise CheckFailed("its graph comes without the logits of the probes")
    for other, what in (
        (logits, "gives other logits than its module gave"),
        (alone, "gives other logits for an image alone than for one in a batch"),
        (turned, "gives other logits for an image among other images"),
    ):
        apart = float((here - other).abs().max() / other.abs().max().clamp_min(1e-12))
        if not apart <= TOLERANCE:
            raise CheckFailed(f"its graph {what} (by {apart:.1e} of the largest)")
