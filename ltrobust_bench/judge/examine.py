"""What must hold before a graph stands for a network: its backbone is the registry's, with the network's weights; what
comes after sees features only; and it gives the logits that the module gave."""

from __future__ import annotations

from collections.abc import Mapping
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
    operations, features = operations_of(backbone, shape)
    start = len(operations)
    if file.graph.nodes[:start] != list(operations):
        raise CheckFailed(f"its graph does not begin with the operations of {backbone.text} on the image")
    tail = file.graph.nodes[start:]
    used = [name for node in file.graph.nodes for name in tensors(node.op, node.given)]
    missing = {name.removeprefix(WEIGHT) for name in used if name.startswith(WEIGHT)} - weights.keys()
    if missing:
        raise CheckFailed(f"its graph uses a weight that its network has not: {min(missing)}")
    values = {name: weights[name.removeprefix(WEIGHT)] for name in used if name.startswith(WEIGHT)}
    values |= {f"{CONSTANT}{name}": value for name, value in file.constants.items()}
    _check_tail(tail, start, file.constants, classes)
    _check_sizes(tail, start, values, features, classes)
    module = Interpreted(file.graph.nodes, values).eval()
    _check_logits(module, file.logits, shape)
    return module


def tail_of(graph: Graph, backbone: Backbone, shape: Shape) -> list[str]:
    """What a graph computes after its backbone, a line for each operation: for whoever reads it."""
    start = len(operations_of(backbone, shape)[0])
    lines = []
    for number, node in enumerate(graph.nodes[start:], start):
        given = ["features" if value == f"{NODE}{start - 1}" else value for value in node.given]
        lines.append(f"{NODE}{number} = {node.op}({', '.join(str(value) for value in given)})")
    return lines


@lru_cache(maxsize=8)
def operations_of(backbone: Backbone, shape: Shape) -> tuple[tuple[Node, ...], int]:
    """The operations of a network of this package up to its features, and their number D.

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
    graph, _ = graph_of(network, shape, network.state_dict())
    return tuple(graph.nodes), features


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


def _check_sizes(tail: list[Node], start: int, values: Mapping[str, Tensor], features: int, classes: int) -> None:
    """See what sizes come out, without computing: for two and for three images."""
    names = {f"{NODE}{number}": f"{NODE}{number - start + 1}" for number in range(start, start + len(tail))}
    names[f"{NODE}{start - 1}"] = IMAGE  # features take the image's place
    moved = [node.model_copy(update={"given": [_renamed(v, names) for v in node.given]}) for node in tail]
    shifted = [Node(op="relu.default", given=[IMAGE]), *moved]  # so that results keep their numbers
    headless = {name: value.to("meta") for name, value in values.items() if not name.startswith(f"{WEIGHT}{BACKBONE}")}
    for images in (2, 3):
        for end in range(2, len(shifted) + 1):
            result = _sized(Interpreted(shifted[:end], headless), torch.empty(images, features, device="meta"))
            if result.numel() > images * WIDEST:
                raise CheckFailed(f"operation {start + end - 2} of its graph makes too much of {images} images")
        if result.shape != (images, classes) or result.dtype != torch.float32:
            raise CheckFailed(f"its graph makes {tuple(result.shape)}, {result.dtype}, of {images} images")


def _renamed(value: object, names: Mapping[str, str]) -> object:
    return names.get(value, value) if isinstance(value, str) else value


def _sized(module: nn.Module, x: Tensor) -> Tensor:
    try:
        found: Tensor = module(x)
    except Exception as error:  # noqa: BLE001 - sizes that do not fit show in many ways
        raise CheckFailed(f"its graph cannot be computed ({' '.join(str(error).split())[:200]})") from None
    return found


def _check_logits(module: nn.Module, logits: Tensor, shape: Shape) -> None:
    """See that a graph gives the logits that its module gave where it was exported, whatever the size of a batch."""
    with torch.no_grad(), full_float32():
        here = torch.cat([module(batch) for batch in probes(shape)])
    if logits.shape != here.shape or logits.dtype != here.dtype:
        raise CheckFailed("its graph comes without the logits of the probes")
    apart = float((here - logits).abs().max() / logits.abs().max().clamp_min(1e-12))
    if not apart <= TOLERANCE:
        raise CheckFailed(f"its graph gives other logits than its module gave (by {apart:.1e} of the largest)")
