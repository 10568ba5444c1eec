"""From a module to a graph of tensor operations, by torch.export. It runs the module's Python: of a method that is
judged, only in a process apart."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ltrobust_bench.errors import CheckFailed
from ltrobust_bench.judge.graph import CONSTANT, IMAGE, NODE, WEIGHT, Graph, GraphFile, Node, check_graph, probes
from ltrobust_bench.judge.operations import HERE, arguments, overload
from ltrobust_bench.models.registry import Shape
from ltrobust_bench.terms import printable

ASIDE = "aten._assert_tensor_metadata.default"
"""What torch.export notes beside a conversion; it computes nothing."""


def export(module: nn.Module, shape: Shape, weights: Mapping[str, Tensor]) -> GraphFile:
    """A module as a graph, and its logits for the probes.

    Args:
        module: pixels to logits, on the CPU; it is put in eval mode.
        shape: of one image.
        weights: of the network, by name: what of the module's tensors equals one of these is named, the others are
            constants.

    Raises:
        CheckFailed: in one line, if it cannot be written as operations on the judge's list.
    """
    graph, constants = graph_of(module, shape, weights)
    with torch.no_grad():
        logits = torch.cat([module(batch) for batch in probes(shape)])
    return GraphFile(graph, constants, logits)


def graph_of(module: nn.Module, shape: Shape, weights: Mapping[str, Tensor]) -> tuple[Graph, dict[str, Tensor]]:
    """The graph of a module and its constants, see :func:`export`."""
    program = _exported(module.eval(), probes(shape)[-1])
    inputs, constants = _inputs(program, weights)
    called = [node for node in program.graph.nodes if node.op == "call_function" and str(node.target) != ASIDE]
    nodes = list(_in_order(called, next(node for node, name in inputs.items() if name == IMAGE)))
    (results,) = next(node for node in program.graph.nodes if node.op == "output").args
    if list(results) != nodes[-1:]:
        raise CheckFailed("it gives something else than logits")
    names = inputs | {node: f"{NODE}{number}" for number, node in enumerate(nodes)}
    graph = Graph(version=1, nodes=[_node(node, names) for node in nodes])
    check_graph(graph, constants)
    return graph, constants


def _exported(module: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    logging.getLogger("torch").setLevel(logging.ERROR)  # a refusal is one line, of which torch makes a hundred
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            size = ({0: torch.export.Dim.DYNAMIC},)
            return torch.export.export(module, (images,), dynamic_shapes=size, strict=False)
    except Exception as error:  # noqa: BLE001 - whatever a module's code may raise
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CheckFailed(f"torch.export cannot follow it ({printable(reason.strip(), 200)})") from None


def _inputs(
    program: torch.export.ExportedProgram, weights: Mapping[str, Tensor]
) -> tuple[dict[fx.Node, str], dict[str, Tensor]]:
    """The graph's inputs by their names, and the constants among them."""
    names, constants = dict[fx.Node, str](), dict[str, Tensor]()
    tensors = {**program.constants, **program.state_dict}
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        if spec.target is None:
            names[node] = IMAGE
        elif node.users:
            value = tensors[spec.target].detach()
            name = _name_of(spec.target, value, weights)
            names[node] = f"{WEIGHT}{name}" if name else f"{CONSTANT}{spec.target}"
            if name is None:
                constants[spec.target] = value.clone()
    return names, constants


def _name_of(target: str, value: Tensor, weights: Mapping[str, Tensor]) -> str | None:
    """The weight that a tensor is, bit for bit; of several that are equal, the one whose name it bears."""
    fitting = [name for name, weight in weights.items() if weight.dtype == value.dtype and torch.equal(weight, value)]
    bearing = [name for name in fitting if f".{target}".endswith(f".{name}")]
    return next(iter(bearing + fitting), None)


def _in_order(called: Sequence[fx.Node], image: fx.Node) -> Iterator[fx.Node]:
    """Operations in the order in which they are computed, but what does not depend on the image just before it is
    needed: so a backbone's come first and together, whatever is done to the head before it."""
    moving, seen = {image}, set[fx.Node]()

    def with_needed(node: fx.Node) -> Iterator[fx.Node]:
        for given in node.all_input_nodes:
            if given.op == "call_function" and given not in seen:
                yield from with_needed(given)
        seen.add(node)
        yield node

    for node in called:
        if not moving.isdisjoint(node.all_input_nodes):
            moving.add(node)
            yield from with_needed(node)


def _node(node: fx.Node, names: Mapping[fx.Node, str]) -> Node:
    """An operation with all of its arguments, those that were left out, too."""
    operation = str(node.target).removeprefix("aten.")
    schema = overload(operation)._schema.arguments
    given = dict(zip((argument.name for argument in schema), node.args, strict=False)) | node.kwargs
    values = [given.get(a.name, a.default_value if a.has_default_value() else None) for a in schema]
    for number, (name, kind) in enumerate(arguments(operation)):
        values[number] = True if (operation, name) in HERE else _value(values[number], kind, names)
    return Node(op=operation, given=values)


def _value(value: Any, kind: str, names: Mapping[fx.Node, str]) -> Any:
    if isinstance(value, fx.Node):
        if value not in names:
            raise CheckFailed("it computes with the number of images in a batch")
        return names[value]
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, (list, tuple)):
        return [_value(each, kind, names) for each in value]
    return float(value) if kind == "float" else value
