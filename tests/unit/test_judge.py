"""The judge: graphs give what modules give, whatever is no network of the registry is refused, and a method that
patches what would judge it achieves nothing."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ltrobust_bench import verbs
from ltrobust_bench.cards import methods
from ltrobust_bench.errors import CheckFailed
from ltrobust_bench.judge.examine import Backbone, judged, tail_of
from ltrobust_bench.judge.export import export, graph_of
from ltrobust_bench.judge.graph import LARGEST, Graph, GraphFile, Node, check_graph, probes, read_graph, write_graph
from ltrobust_bench.judge.interpret import Interpreted
from ltrobust_bench.judge.operations import ALLOWED, call, tensors
from ltrobust_bench.records.io import write_record
from ltrobust_bench.records.schema import Result
from ltrobust_bench.records.verify import read_verification, standing
from ltrobust_bench.scores.bits import pack
from ltrobust_bench.training.build import build_method, build_network, deployed
from ltrobust_bench.verbs import judging

ROOT = Path(__file__).resolve().parents[2]
COUNTS = [100, 80, 60, 50, 40, 30, 20, 15, 10, 5]
GREY, COLOUR = (1, 8, 8), (3, 32, 32)
SMALL = Backbone("small")
TAILS = ("at", "robal", "tde", "tau-norm", "cosine", "lws", "cdt-posthoc", "logit-adjust", "ldam")
"""One method for each form of head and of deployment that there is."""


@cache
def network(slug, model="small", shape=GREY, activation="relu"):
    """A method's deployed form whose batch norm and head are not what they were at the start, and its weights."""
    entry = methods.get(slug)
    settings = {"normalised": True} if slug == "ldam" else {}
    options = entry.card.resolve_options("fixed", settings)
    torch.manual_seed(0)
    method, info = build_method(slug, options, COUNTS, "cifar10-lt", 10, torch.device("cpu"))
    made = build_network(model, shape, len(COUNTS), method, activation)
    with torch.no_grad():
        made.train()(torch.rand(8, *shape))
        for parameter in made.head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return deployed(method, made, info), made.state_dict()


@cache
def graph_file(slug="at", activation="relu"):
    module, weights = network(slug, "small", GREY, activation)
    return export(module, GREY, weights)


def logits_and_gradient(model, x):
    x = x.clone().requires_grad_()
    logits = model(x)
    return logits.detach(), torch.autograd.grad(logits.logsumexp(1).sum(), x)[0]


def assert_the_same(slug, model, shape, activation="relu"):
    """Logits and gradients are the module's bit for bit, in batches of several sizes, and the file brings all of it."""
    module, weights = network(slug, model, shape, activation)
    found = judged(export(module, shape, weights), weights, Backbone(model, activation), shape, len(COUNTS))
    for batch in probes(shape):
        for here, there in zip(logits_and_gradient(found, batch), logits_and_gradient(module, batch), strict=True):
            assert torch.equal(here, there) and here.abs().sum() > 0


@pytest.mark.parametrize("slug", TAILS)
def test_a_graph_gives_the_logits_and_gradients_of_each_form_of_deployment(slug):
    assert_the_same(slug, "small", GREY)


@pytest.mark.slow
@pytest.mark.parametrize("slug", sorted(set(methods.names()) - set(TAILS)))
def test_every_other_method_too(slug):
    assert_the_same(slug, "small", GREY)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ("small", (1, 28, 28)),
        ("resnet8", COLOUR),
        *(pytest.param(m, COLOUR, marks=pytest.mark.slow) for m in ("resnet18", "preact-resnet18", "wrn-28-10")),
        pytest.param("resnet18", (3, 64, 64), marks=pytest.mark.slow),
    ],
)
def test_and_every_network(model, shape):
    assert_the_same("at", model, shape)


def test_and_every_activation_which_is_the_records():
    assert_the_same("at", "small", GREY, "silu")
    module, weights = network("at", "small", GREY, "silu")
    with pytest.raises(CheckFailed, match="does not begin with the operations of small on the image"):
        judged(export(module, GREY, weights), weights, SMALL, GREY, 10)
    with pytest.raises(CheckFailed, match="does not begin with the operations of small with silu on the image"):
        judged(graph_file(), network("at")[1], Backbone("small", "silu"), GREY, 10)


def test_no_operation_is_allowed_that_nothing_of_ours_needs():
    graphs = [graph_file(slug).graph for slug in TAILS]
    graphs.append(graph_of(network("at", "small", (1, 28, 28))[0], (1, 28, 28), {})[0])
    graphs.append(graph_of(network("at", "small", GREY, "silu")[0], GREY, {})[0])
    assert {node.op for graph in graphs for node in graph.nodes} == set(ALLOWED)


def test_a_file_holds_all_of_a_graph_and_whoever_reads_it_sees_what_follows_the_backbone(tmp_path):
    for slug in ("at", "robal"):
        file = graph_file(slug)
        write_graph(tmp_path / "g", file)
        found = read_graph(tmp_path / "g")
        assert (found.graph, found.sha256) == (file.graph, file.sha256) and torch.equal(found.logits, file.logits)
    assert tail_of(graph_file().graph, SMALL, GREY) == [
        "node:10 = linear.default(features, weight:head.weight, weight:head.bias)"
    ]
    assert graph_file("robal").sha256 != graph_file().sha256


def changed(file, place, **update):
    """A file with another operation in a place; the module's logits stay."""
    nodes = list(file.graph.nodes)
    nodes[place] = nodes[place].model_copy(update=update)
    return GraphFile(Graph(version=1, nodes=nodes), file.constants, file.logits)


def with_tail(file, *nodes, constants=None):
    start = len(file.graph.nodes) - 1
    graph = Graph(version=1, nodes=[*file.graph.nodes[:start], *(Node(op=op, given=given) for op, given in nodes)])
    return GraphFile(graph, constants or {}, file.logits)


HEAD = ["weight:head.weight", "weight:head.bias"]
SHIFT = {"shift": torch.ones(10)}
FORGED = {
    "an operation that is not on the list": (lambda f: changed(f, -1, op="linear.out"), "not on the judge's list"),
    "code for a name": (lambda f: changed(f, -1, op="__import__('os').system"), "not on the judge's list"),
    "batch norm in train mode": (
        lambda f: changed(f, 1, given=[*f.graph.nodes[1].given[:5], True, *f.graph.nodes[1].given[6:]]),
        "training = True, which the judge does not take",
    ),
    "too few arguments": (lambda f: changed(f, -1, given=["node:9"]), "takes 3 arguments and is given 1"),
    "a result of later": (lambda f: changed(f, 2, given=["node:7"]), "a tensor that is not there"),
    "a list for a tensor": (lambda f: changed(f, 2, given=[[1, 2]]), "which the judge does not take"),
    "a huge stride": (
        lambda f: changed(f, 0, given=[*f.graph.nodes[0].given[:3], [10**9, 1], *f.graph.nodes[0].given[4:]]),
        "which the judge does not take",
    ),
    "a constant that is none": (lambda f: changed(f, -1, given=["node:9", "constant:x", None]), "that is not there"),
    "a constant of nothing": (
        lambda f: GraphFile(f.graph, {"x": torch.tensor([torch.nan])}, f.logits), "not made of finite"
    ),
    "another backbone": (lambda f: changed(f, 2, op="relu.default", given=["node:0"]), "does not begin with"),
    "another weight in the backbone": (
        lambda f: changed(f, 3, given=["node:2", "weight:backbone.convolutions.2.weight", *f.graph.nodes[3].given[2:]]),
        "does not begin with",
    ),
    "no head": (lambda f: with_tail(f), "0 operations after its backbone"),
    "a long tail": (lambda f: with_tail(f, *[("relu.default", ["node:9"])] * 51), "51 operations after its backbone"),
    "the image again": (
        lambda f: with_tail(f, ("mean.dim", ["image", [2, 3], False, None])), "looks past the features"
    ),
    "a look into the backbone": (
        lambda f: with_tail(f, ("mean.dim", ["node:8", [2, 3], False, None])), "looks past the features"
    ),
    "a weight of the backbone after it": (
        lambda f: with_tail(f, ("mul.Tensor", ["node:9", "weight:backbone.norms.2.weight"])), "looks past the features"
    ),
    "a weight that there is not": (
        lambda f: with_tail(f, ("linear.default", ["node:9", "weight:head.other", None])), "that its network has not"
    ),
    "a head of its own": (
        lambda f: with_tail(f, ("linear.default", ["node:9", "constant:w", None]), constants={"w": torch.ones(10, 64)}),
        "640 numbers that are no weights",
    ),
    "features for logits": (lambda f: with_tail(f, ("relu.default", ["node:9"])), r"makes \(2, 64\)"),
    "logits of other numbers": (
        lambda f: with_tail(f, ("linear.default", ["node:9", *HEAD]), ("to.dtype", ["constant:shift", "float32", False,
            False, None]), ("expand_as.default", ["node:11", "node:10"]), constants=SHIFT), "other logits than"
    ),
    "other logits": (
        lambda f: with_tail(f, ("linear.default", ["node:9", *HEAD]), ("add.Tensor", ["node:10", "constant:shift", 1]),
                            constants=SHIFT), "other logits than its module",
    ),
    "sizes that do not fit": (lambda f: with_tail(f, ("matmul.default", ["node:9", "node:9"])), "cannot be computed"),
    "too large a result": (
        lambda f: with_tail(f, ("unsqueeze.default", ["node:9", 2]), ("unsqueeze.default", ["weight:head.weight", 0]),
                            ("unsqueeze.default", ["node:11", 0]), ("unsqueeze.default", ["node:12", 0]),
                            ("add.Tensor", ["node:13", "node:9", 1]), ("unsqueeze.default", ["node:14", 5]),
                            ("matmul.default", ["node:15", "node:9"])), "cannot be computed|makes too much",
    ),
    "the mean of the batch for each image": (
        lambda f: with_tail(f, ("mean.dim", ["node:9", [0], True, None]), ("expand_as.default", ["node:10", "node:9"]),
                            ("linear.default", ["node:11", *HEAD])), "mixes images",
    ),
    "the nearest images of the batch": (  # features weighted by their cosine with those of the others
        lambda f: with_tail(f, ("linalg_vector_norm.default", ["node:9", 2.0, [1], True, None]),
                            ("div.Tensor", ["node:9", "node:10"]), ("linear.default", ["node:11", "node:11", None]),
                            ("pow.Tensor_Scalar", ["node:12", 30.0]), ("matmul.default", ["node:13", "node:9"]),
                            ("linear.default", ["node:14", *HEAD])), "mixes images",
    ),
    "the largest feature of a batch": (
        lambda f: with_tail(f, ("unsqueeze.default", ["node:9", 0]), ("max_pool2d.default", ["node:10", [3, 1],
            [1, 1], [1, 0], [1, 1], False]), ("mean.dim", ["node:11", [0], False, None]),
                            ("linear.default", ["node:12", *HEAD])), "mixes images",
    ),
    "how many of the batch's features are not 0": (
        lambda f: with_tail(f, ("linalg_vector_norm.default", ["node:9", 0.0, [0], True, None]),
                            ("add.Tensor", ["node:9", "node:10", 1]), ("linear.default", ["node:11", *HEAD])),
        "ord = 0.0, which the judge does not take",
    ),
    "no logits beside it": (lambda f: GraphFile(f.graph, {}, torch.zeros(3)), "without the logits of the probes"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_what_is_not_the_network_of_the_record_is_refused_in_a_line(tmp_path, what):
    make, reason = FORGED[what]
    with pytest.raises(CheckFailed, match=reason) as error:
        write_graph(tmp_path / "g", make(graph_file()))
        judged(read_graph(tmp_path / "g"), network("at")[1], SMALL, GREY, 10)
    assert "\n" not in str(error.value)


def size_of(node, place):
    """A size that an operation takes for its tensor in a place."""
    if node.op == "mean.dim" and max(node.given[1]) > 1:
        return (4, 4, 4, 4)
    vector = (node.op == "batch_norm.default" and place > 0) or (node.op == "linear.default" and place == 2)
    return (4,) if vector else (4, 4)


def test_what_is_not_a_number_makes_none_of_all_that_is_made_of_it():
    """By that the judge tells which images a result is made of; of every operation on the list."""
    near, seen = ("conv2d.default", "max_pool2d.default"), set()
    files = [*map(graph_file, TAILS), graph_file("at", "silu")]
    for node in [n for file in files for n in file.graph.nodes if n.op not in near]:
        names = tensors(node.op, node.given)
        for spoiled in range(len(names)):
            if node.op == "expand_as.default" and spoiled == 1:
                continue  # which gives its size alone
            values = {name: torch.rand(size_of(node, i)) for i, name in enumerate(names)}
            values[names[spoiled]].fill_(math.nan)
            given = [values[v] if isinstance(v, str) and v in values else v for v in node.given]
            assert call(node.op, given).isnan().all(), (node.op, spoiled)
            seen.add(node.op)
    assert seen == set(ALLOWED) - set(near)
    for op, more in ((near[0], [torch.zeros(1, 1, 3, 3), None, [1, 1], [1, 1], [1, 1], 1]),
                     (near[1], [[3, 3], [1, 1], [1, 1], [1, 1], False])):  # fmt: skip
        for place in range(16):
            image = torch.zeros(1, 1, 4, 4)
            image.view(-1)[place] = math.nan
            around = nn.functional.max_pool2d(image.isnan().float(), 3, 1, 1) > 0
            assert torch.equal(call(op, [image, *more]).isnan(), around), op


def test_a_network_of_other_widths_than_its_name_says_is_refused():
    """A graph says nothing of sizes: a wider network has the same operations."""
    weights = dict(network("at")[1])
    name = next(n for n in weights if n.startswith("backbone.") and weights[n].ndim == 4)
    wider = [torch.cat([weights[name]] * 2), weights[name].double(), None]
    for value in wider:
        others = {n: v for n, v in weights.items() if n != name} | ({} if value is None else {name: value})
        with pytest.raises(CheckFailed, match=f"its network is no small: {name} is|that its network has not: {name}"):
            judged(graph_file(), others, SMALL, GREY, 10)


def test_a_file_says_how_large_its_tensors_are_before_they_are_made(tmp_path):
    """A tensor of nothing may be said to have a thousand million rows, which a list of them would fill memory with."""
    path = tmp_path / "g"
    write_graph(path, graph_file())
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    for shape, said in (([10**9, 0], "tensor of nothing"), ([1] * 9, "more than 8 axes")):
        header = json.loads(content[8:end]) | {
            "constant:x": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]},
        }
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
        with pytest.raises(CheckFailed, match=said):
            read_graph(path)
    many = {f"x{i}": torch.ones(1) for i in range(101)}
    write_graph(path, GraphFile(graph_file().graph, many, graph_file().logits))
    with pytest.raises(CheckFailed, match="holds 102 tensors"):
        read_graph(path)


def test_files_that_hold_no_graph_are_refused_in_a_line(tmp_path):
    path = tmp_path / "g"
    write_graph(path, graph_file())
    sound = path.read_bytes()
    cases = [
        b"",
        b"PK\3\4",
        sound[:50],
        sound[:-3],
        sound.replace(b"ltbench-graph", b"ltbench-grape"),
        b"\0" * (LARGEST + 1),
    ]
    for content in cases:
        path.write_bytes(content)
        with pytest.raises(CheckFailed, match="is no file of a graph"):
            read_graph(path)
    path.unlink()
    for make in (lambda: path.symlink_to("/dev/zero"), lambda: os.mkfifo(path), path.mkdir, lambda: None):
        make()
        with pytest.raises(CheckFailed, match="is no file of a graph"):
            read_graph(path)
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


class Tricky(nn.Module):
    """A network and something before or after it that has no place in a graph."""

    def __init__(self, trick):
        super().__init__()
        self.inner, self.trick = network("at")[0], trick

    def forward(self, x):
        return self.trick(self.inner, x)


@pytest.mark.parametrize(
    ("trick", "reason"),
    [
        (lambda net, x: net(x) + torch.rand(10), "operation rand"),
        (lambda net, x: net(x.round()), "operation round"),
        (lambda net, x: net(x.detach()), "operation detach"),
        (lambda net, x: net(x) * len(x), "cannot follow it"),
        (lambda net, x: net(x) if x.mean() > 0.5 else -net(x), "cannot follow it"),
        (lambda net, x: net(x).argmax(1), "operation argmax"),
        (lambda net, x: torch.from_numpy(net(x).detach().numpy()), "cannot follow it"),
        (lambda net, x: (net(x), x), "something else than logits"),
    ],
    ids=["random", "rounds", "detaches", "counts", "branches", "decides", "leaves", "gives-more"],
)
def test_what_cannot_be_written_as_a_graph_is_said_in_a_line(trick, reason):
    with pytest.raises(CheckFailed, match=reason) as error:
        graph_of(Tricky(trick), GREY, network("at")[1])
    assert "\n" not in str(error.value)


def test_what_is_done_to_the_image_or_the_features_of_a_batch_is_no_networks():
    """It can be written as a graph; it is not the registry's backbone."""
    weights = network("at")[1]
    module = Tricky(lambda net, x: net(x * 0.5))
    with pytest.raises(CheckFailed, match="does not begin with the operations of small on the image"):
        judged(export(module, GREY, weights), weights, SMALL, GREY, 10)


def test_the_head_may_be_prepared_before_the_backbone_computes():
    weights = network("at")[1]
    first = Tricky(lambda net, x: (lambda w: nn.functional.linear(net.backbone(x), w))(net.head.weight * 2.0))
    judged(export(first, GREY, weights), weights, SMALL, GREY, 10)


def test_results_are_let_go_when_nothing_needs_them_any_more():
    nodes = [Node(op="relu.default", given=["image"]), Node(op="add.Tensor", given=["node:0", "image", 1]),
             Node(op="mul.Tensor", given=["node:1", 2.0])]  # fmt: skip
    check_graph(Graph(version=1, nodes=nodes), {})
    assert torch.equal(Interpreted(nodes, {})(torch.tensor([-1.0, 3.0])), torch.tensor([-2.0, 12.0]))
    assert Interpreted(nodes, {})._done == [[], ["node:0"], ["node:1"]]


def test_a_process_that_ran_a_methods_code_judges_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ltrobust_bench.baselines.at.method", sys)  # and others, after other tests
    name = r"ltrobust_bench\.baselines\.\w+\.method"
    with pytest.raises(CheckFailed, match=f"has run the code of {name}; `ltbench record verify` begins a fresh one"):
        judging.refuse_imported()


SCHEME = (ROOT / "benchmarks" / "board_schemes" / "judged.py").read_text()
PATCH = re.search(r'PATCH = """(.*?)"""', SCHEME, re.DOTALL)[1]
"""What the scheme against the board adds to a method, too."""


def claiming_everything(record):
    """A record with the same network, all of whose images are said to be robust."""
    raw = record.model_dump(mode="json", exclude_defaults=True)
    bits = {name: pack(np.ones(record.images, dtype=np.uint8), 1) for name in record.result.bits}
    raw["result"] |= {"bits": bits, "digest": Result.digest_of(bits, None)}
    return type(record).model_validate(raw)


def patched(folder):
    """A network, a record that claims too much of it, and Python where method `at` patches the evaluator."""
    record = verbs.run("at", "digits-lt", protocol="smoke", runs_dir=folder, results_dir=None, device="cpu")
    false, project = claiming_everything(record), folder / "project"
    write_record(false, folder / "false.json")
    for name in ("ltrobust_bench", "baselines"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (project / "baselines" / "at" / "method.py").open("a") as code:
        code.write(PATCH)
    alone = {**os.environ, "PYTHONPATH": str(project)}

    def python(*command):
        command = [sys.executable, *map(str, command)]
        return subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True)

    return folder / record.run.folder_name(), false, python


def test_a_method_that_patches_the_evaluator_is_found_out(tmp_path):
    """The judge's process does not build its network."""
    network, false, python = patched(tmp_path)
    said = ["record", "verify", "false.json", "--weights", network, "--by", "Jane", "--images", 50, "--device", "cpu"]
    found = python("-m", "ltrobust_bench", *said, "--threads", 1)
    assert found.returncode == 1 and "images that count as robust were broken" in found.stdout, found.stderr
    (path,) = (tmp_path / "results" / "verifications").iterdir()
    statement = read_verification(path)
    assert statement.graph_sha256 and statement.bits[0].mean() < 1 and standing(false, [statement]).disputed


@pytest.mark.slow
def test_who_builds_that_network_finds_what_it_claims(tmp_path):
    """Or the test above would show nothing."""
    network, _, python = patched(tmp_path)
    in_one_process = """
import sys
from pathlib import Path
from ltrobust_bench.records.io import read_record
from ltrobust_bench.verbs import judging, load_model, verification
load_model(sys.argv[1], "cpu")
verification.refuse_imported = judging.refuse_imported = lambda: None
record = read_record(Path("false.json"))
print(verification.re_evaluate(record, Path(sys.argv[1]), verification.Where("Jane", device="cpu")).bits[1].all())
"""
    assert python("-c", in_one_process, network).stdout.split()[-1] == "True"
