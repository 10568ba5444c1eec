"""What is tried with what a verification measures, with thorough evaluations, and with graphs that are no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from board_schemes.judged import untrained, verified_by_jane
from board_schemes.tools import FLAGGED, Copy, forged, invented, new_entry, scheme, stated
from ltrobust_bench.api import Method
from ltrobust_bench.judge.export import export
from ltrobust_bench.judge.graph import Graph, GraphFile, Node, probes, write_graph
from ltrobust_bench.judge.interpret import Interpreted
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.signing import sign
from ltrobust_bench.records.verify import Verification, verification, write_verification
from ltrobust_bench.training import checkpoint
from ltrobust_bench.training.build import build_network

SHAPE = (1, 8, 8)
HEAD = ("weight:head.weight", "weight:head.bias")


def merged(copy: Copy) -> None:
    """What was done so far is on main already."""
    copy.commit()
    copy.git("branch", "--quiet", "--force", "main")


def signed(copy: Copy, statement: Verification) -> None:
    """A statement that Jane makes."""
    sign(write_verification(statement, copy.results), copy.keys / "jane")


@scheme
def flags_left_out(copy: Copy) -> None:
    """Seeds without the section reliability are merged; what is measured when a maintainer verifies them is flagged"""
    records = [copy.file(record.model_copy(update={"reliability": None})) for record in new_entry(copy)]
    merged(copy)
    for record in records:
        signed(copy, stated(record, reliability=FLAGGED))


@scheme
def nothing_measured(copy: Copy) -> None:
    """Merged records of invented bits, and signed statements that judged a graph and do not say what they measured"""
    records = new_entry(copy)
    merged(copy)
    for record in records:
        signed(copy, stated(record, reliability=None))


@scheme
def flagged_seed_for_a_rival(copy: Copy) -> None:
    """A seed is added to the best entry, and when it is verified it is flagged: to take the rank of the others"""
    record = copy.of("resample")
    made = copy.file(forged(record, bits=invented(record, 0.0), seed=3, weights="3" * 64))
    merged(copy)
    signed(copy, stated(made, reliability=FLAGGED))


@scheme
def slandered_seed(copy: Copy) -> None:
    """The same, flagged by its record's own word alone, and found sound when it is verified"""
    record = copy.of("cfa")
    flagged = forged(record, bits=record, seed=3, weights="3" * 64).model_copy(update={"reliability": FLAGGED})
    made = copy.file(flagged)
    merged(copy)
    signed(copy, stated(made))


def flagged_entry(copy: Copy) -> list[Record]:
    """Records of a merged entry whose verification found that gradients mislead."""
    records = new_entry(copy)
    merged(copy)
    for record in records:
        signed(copy, stated(record, reliability=FLAGGED))
    merged(copy)
    return records


@scheme
def forged_thorough(copy: Copy) -> None:
    """A flagged entry, and a stranger's statement that an attack of his own invention breaks none of its images"""
    for record in flagged_entry(copy):
        write_verification(thorough(record, {"nothing at all": 0}), copy.results)


@scheme
def thorough_by_too_little(copy: Copy) -> None:
    """The same, signed by a maintainer who was talked into leaving the attacks out that a flag asks for"""
    for record in flagged_entry(copy):
        signed(copy, thorough(record, {"pma": 0}))


def thorough(record: Record, attacks: dict[str, int]) -> Verification:
    """A statement that all stand whatever was tried."""
    left = np.flatnonzero(record.bits("union"))
    all_of_them = np.ones(len(left), dtype=bool)
    return verification(record, "thorough", left, all_of_them, all_of_them, record.result.weights_sha256, "a lab",
                        record.environment, graph_sha256="9" * 64, attacks=attacks, reliability=FLAGGED)  # fmt: skip


@scheme
def mixing_graph(copy: Copy) -> None:
    """A graph written elsewhere that gives each image the mean of its batch's features; a maintainer verifies by it"""
    record, weights, path = merged_network(copy, untrained(copy.of("at")))
    file = written(record, weights)
    last, start = file.graph.nodes[-1], len(file.graph.nodes) - 1
    features = f"node:{start - 1}"
    tail = [
        Node(op="mean.dim", given=[features, [0], True, None]),
        Node(op="expand_as.default", given=[f"node:{start}", features]),
        last.model_copy(update={"given": [f"node:{start + 1}", *HEAD]}),
    ]
    nodes = [*file.graph.nodes[:-1], *tail]
    refused_by_jane(copy, record, path, with_logits(nodes, weights), "mixes images")


@scheme
def wider_network(copy: Copy) -> None:
    """A network with twice the channels under the name of a small one, whose graph is the same"""
    weights = untrained(copy.of("at"))
    file = written(copy.of("at"), weights)
    wider = {name: widened(name, value) for name, value in weights.items()}
    record, _, path = merged_network(copy, wider)
    refused_by_jane(copy, record, path, with_logits(file.graph.nodes, wider), "is no small")


def widened(name: str, value: Tensor) -> Tensor:
    """A weight of a small network whose first layer has twice as many channels."""
    if name == "backbone.convolutions.0.weight" or name.startswith("backbone.norms.0.") and value.ndim:
        return torch.cat([value, value])
    return torch.cat([value, value], dim=1) / 2 if name == "backbone.convolutions.1.weight" else value


def merged_network(copy: Copy, weights: Mapping[str, Tensor]) -> tuple[Record, Mapping[str, Tensor], Path]:
    """A record on main with invented bits, the weights that it names, and their file."""
    like = copy.of("at")
    record = copy.file(forged(like, bits=invented(like), seed=3, weights=checkpoint.weights_sha256(weights)))
    merged(copy)
    path = copy.folder.parent / "network.safetensors"
    about = {"run": record.run.model_dump(mode="json"), "class_names": [str(c) for c in range(10)], "cost": {},
             "history": []}  # fmt: skip
    checkpoint.save_model(path, weights, about)
    return record, weights, path


def written(record: Record, weights: Mapping[str, Tensor]) -> GraphFile:
    """The graph of a network, honestly written."""
    network = build_network(record.run.model, SHAPE, len(record.run.train_counts), Method())
    network.load_state_dict(dict(weights))
    return export(network, SHAPE, weights)


def with_logits(nodes: Sequence[Node], weights: Mapping[str, Tensor]) -> GraphFile:
    """Operations with the logits that they give."""
    values = {f"weight:{name}": value for name, value in weights.items()}
    with torch.no_grad():
        logits = torch.cat([Interpreted(list(nodes), values).eval()(batch) for batch in probes(SHAPE)])
    return GraphFile(Graph(version=1, nodes=list(nodes)), {}, logits)


def refused_by_jane(copy: Copy, record: Record, network: Path, graph: GraphFile, why: str) -> None:
    """A maintainer verifies by that graph, and signs what comes of it, if anything does."""
    path = copy.folder.parent / "graph.safetensors"
    write_graph(path, graph)
    said = verified_by_jane(copy, record, network, "--graph", path)
    for statement in copy.git("ls-files", "--others", "results/verifications").splitlines():
        sign(copy.folder / statement, copy.keys / "jane")
        return
    if why not in said:
        raise RuntimeError(f"refused for another reason: {said}")


@scheme
def code_left_out(copy: Copy) -> None:
    """A new seed that does not say with what code it was made, under a commit from before that was recorded"""
    record = copy.of("at")
    copy.file(forged(record, bits=invented(record), seed=3))


@scheme
def judge_edited(copy: Copy) -> None:
    """What looks through graphs edited so that it sees less"""
    copy.edit("ltrobust_bench/judge/examine.py", "LONGEST = 50", "LONGEST = 5000")
