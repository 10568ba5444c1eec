"""A network as a graph of tensor operations, and the file that holds it.

The file is a safetensors file, which holds numbers and no code: the graph stands in its header as JSON, beside it the
constants and the logits of :func:`probes`. The weights are not in it: the graph names those of the network's own file.
Nothing of a file is run before all of it was checked, and reading one imports nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ltrobust_bench.errors import CheckFailed, RecordError
from ltrobust_bench.files import write_bytes
from ltrobust_bench.judge.operations import Value, check, tensors
from ltrobust_bench.reading import read_bytes
from ltrobust_bench.records.strict import findings_of, parse_json
from ltrobust_bench.terms import Strict, canonical_digest

LARGEST = 4_000_000
"""Bytes of a file; that of a WideResNet-34-10 has some ten thousand."""
MOST_CONSTANTS = 100
"""Of a file; those of ours have two."""
MOST_AXES = 8
HEADER, PROBED = "ltbench-graph", "logits"
IMAGE, WEIGHT, CONSTANT, NODE = "image", "weight:", "constant:", "node:"
"""Names of tensors: the image, ``weight:NAME``, ``constant:NAME`` and ``node:N``, the result of operation N from 0."""
NAME = re.compile(r"[A-Za-z0-9_.]{1,200}")
BATCHES = (1, 3, 8)
"""Sizes of the batches in which the probes are passed."""


class Node(Strict):
    """One operation and what it is given, in the order of its arguments."""

    op: str = Field(max_length=100)
    given: Annotated[list[Value], Field(max_length=20)]


class Graph(Strict):
    """Operations in the order in which they are computed; the last one's result are the logits."""

    version: Literal[1]
    nodes: Annotated[list[Node], Field(min_length=1, max_length=5_000)]


@dataclass(frozen=True, eq=False)
class GraphFile:
    """What a file of a graph holds.

    Attributes:
        graph: the operations.
        constants: tensors that are no weights, by name.
        logits: what the module gave for :func:`probes`, float32, shape [sum(BATCHES), C].
    """

    graph: Graph
    constants: Mapping[str, Tensor]
    logits: Tensor

    @property
    def sha256(self) -> str:
        """Digest (hex) of operations and constants: of what is judged."""
        constants = {name: [str(value.dtype), value.tolist()] for name, value in self.constants.items()}
        return canonical_digest([self.graph.model_dump(mode="json"), constants])


def probes(shape: Sequence[int]) -> list[Tensor]:
    """Images on which a graph is compared with its network: noise of all contrasts, in batches of several sizes."""
    generator, count = torch.Generator().manual_seed(20), sum(BATCHES)
    low, contrast = torch.rand(2, count, 1, 1, 1, generator=generator)
    images = low + (1 - low) * contrast * torch.rand(count, *shape, generator=generator)
    return list(images.split(BATCHES))


def write_graph(path: Path, file: GraphFile) -> None:
    """Write a graph; the file comes into being whole or not at all."""
    stored = {PROBED: file.logits, **{f"{CONSTANT}{name}": value for name, value in file.constants.items()}}
    header = {HEADER: json.dumps(file.graph.model_dump(mode="json"))}
    write_bytes(path, save({name: value.contiguous() for name, value in stored.items()}, metadata=header))


def read_graph(path: Path) -> GraphFile:
    """The graph in a file, with every operation checked.

    Raises:
        CheckFailed: saying what is wrong with it.
    """
    try:
        content = read_bytes(path, LARGEST)
        header = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")])
        _check_header(header)
        stored = load(content)
        graph = Graph.model_validate(parse_json(header["__metadata__"][HEADER].encode()))
        logits = stored.pop(PROBED)
    except ValidationError as error:
        raise CheckFailed(f"{path} is no file of a graph: {findings_of(error)[0]}") from None
    except (OSError, SafetensorError, RecordError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckFailed(f"{path} is no file of a graph ({reason[:200]})") from None
    constants = {name.removeprefix(CONSTANT): value for name, value in stored.items()}
    check_graph(graph, constants)
    return GraphFile(graph, constants, logits)


def _check_header(header: Mapping[str, Any]) -> None:
    """See what tensors a file says that it holds, before one is made: few, and none of nothing, whose other sizes could
    be anything.

    Raises:
        ValueError: saying what is not so.
    """
    named = {name: stated["shape"] for name, stated in header.items() if name != "__metadata__"}
    if len(named) > MOST_CONSTANTS + 1:
        raise ValueError(f"it holds {len(named)} tensors, and {MOST_CONSTANTS} constants are allowed")
    if any(len(shape) > MOST_AXES or 0 in shape for shape in named.values()):
        raise ValueError(f"it holds a tensor of nothing, or of more than {MOST_AXES} axes")


def check_graph(graph: Graph, constants: Mapping[str, Tensor]) -> None:
    """See that all operations are on the list, and that tensors are there when they are used.

    Raises:
        CheckFailed: naming the operation.
    """
    for name, value in constants.items():
        known = NAME.fullmatch(name) is not None and value.dtype in (torch.float32, torch.float64)
        if not known or not bool(torch.isfinite(value).all()):
            raise CheckFailed("its graph has a constant that is not made of finite float32 or float64 numbers")
    for number, node in enumerate(graph.nodes):
        check(node.op, node.given)
        for name in tensors(node.op, node.given):
            if not _is_there(name, number, constants):
                raise CheckFailed(f"operation {number} of its graph, {node.op}, is given a tensor that is not there")


def _is_there(name: str, number: int, constants: Mapping[str, Tensor]) -> bool:
    """Whether operation ``number`` can be given the tensor of this name. Weights are looked up where they are known."""
    kind, colon, which = name.partition(":")
    if kind + colon == NODE:
        return re.fullmatch("0|[1-9][0-9]{0,3}", which) is not None and int(which) < number
    if kind + colon == CONSTANT:
        return which in constants
    return name == IMAGE or (kind + colon == WEIGHT and NAME.fullmatch(which) is not None)
