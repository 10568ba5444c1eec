"""Every attack, and what looks at models, on the pretend GPU: the CPU's verdicts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pretend import NAME, pretend_cuda

from ltrobust_bench import verbs
from ltrobust_bench.attacks.ball import BALLS
from ltrobust_bench.attacks.registry import standard_attacks
from ltrobust_bench.attacks.transfer import Transfer
from ltrobust_bench.cli.main import main
from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.compute.stand_in import StandIn
from ltrobust_bench.data.loader import DeviceData, to_unit
from ltrobust_bench.evaluation import examine
from ltrobust_bench.evaluation.evaluator import evaluate_images, frozen
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.task import make_task
from ltrobust_bench.progress import Silent
from ltrobust_bench.protocol import Suite
from ltrobust_bench.scores.bits import pack
from ltrobust_bench.training.estimate import measure
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs import subject, verification
from ltrobust_bench.verbs.loading import load_model, own_record

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SHORT = {"steps": 2, "queries": 6, "restarts": 1, "targets": 2, "draws": 2}
TERMS = {"protocol": "smoke", "limit_train": 600, "limit_test": 20, "epochs": 6, "imbalance_ratio": 1}


def shortened(attack):
    return attack.model_copy(update={name: value for name, value in SHORT.items() if hasattr(attack, name)})


SUITE = [
    *(shortened(attack) for attack in make_task("digits-lt", protocol="digits-v0").protocol.evaluation.attacks),
    shortened(standard_attacks()["apgd-dlr"]),  # the only one that is in no suite
    *(shortened(standard_attacks()[name]) for name in ("pma", "eot", "spsa", "nes", "nearest-t")),
    shortened(Transfer.standard()),
]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Run folder of a network that knows some of the digits."""
    folder = tmp_path_factory.mktemp("network") / "run"
    train_plan(make_plan("erm", "digits-lt", **TERMS), folder, torch.device("cpu"))
    return folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(subject, "EXAMINED_IN_SMOKE", 10)
    monkeypatch.setattr(examine, "STEPS_AT_HALF", 3)


def verdict(network, kind, *, search="network", ball="Linf", state=None, progress=None):
    task = make_task("digits-lt", protocol="smoke", limit_test=30)
    model, other = (load_model(network, kind).model for _ in range(2))
    index = task.split.test
    data = DeviceData.of(
        task.source.test_images[index], np.asarray(task.source.test_labels[index]), choose_device(kind)
    )
    with frozen(model):
        copied = None if search == "network" else StandIn(model, to_unit(data.images[:2]), search)
    return evaluate_images(
        model,
        data,
        classes=10,
        epsilon=0.03 if ball == "Linf" else 0.3,
        suite=Suite(seed=0, batch_size=16, attacks=SUITE),
        ball=BALLS[ball],
        surrogates={"transfer": other},
        searched=copied,
        identity="this",
        state_path=state,
        progress=progress,
        examined=10 if search == "network" else 0,
    )


def assert_equal(here, there):
    assert here.bits.keys() == there.bits.keys()
    assert all(np.array_equal(bits, there.bits[name]) for name, bits in here.bits.items())
    assert (here.forwards, here.backwards, here.reliability) == (there.forwards, there.backwards, there.reliability)


@pytest.mark.parametrize(
    ("ball", "search"),
    [
        ("Linf", "network"),
        *(
            pytest.param(ball, search, marks=pytest.mark.slow)
            for ball in BALLS
            for search in ("network", "folded", "winograd", "bf16")
            if (ball, search) != ("Linf", "network")
        ),
    ],
)
def test_every_attack_has_the_cpus_verdict(network, ball, search):
    here = verdict(network, "cpu", ball=ball, search=search)
    with pretend_cuda():
        there = verdict(network, "cuda", ball=ball, search=search)
    assert_equal(here, there)
    assert 0 < here.bits["autoattack"].sum() < here.bits["clean"].sum()


def test_an_attack_of_ours_waits_once_a_batch(network, monkeypatch):
    """What waits is the check of a batch before and after it, not its steps: twice as many steps wait no more."""
    plain = next(a for a in SUITE if a.kind == "pgd")
    waits = []
    for steps in (2, 4):
        monkeypatch.setattr(sys.modules[__name__], "SUITE", [plain.model_copy(update={"steps": steps})])
        with pretend_cuda() as log:
            verdict(network, "cuda", search="folded")
            waits.append(sum(log.waits.values()))
    assert waits[0] == waits[1]


class Killed(Silent):
    def advance(self, units=1, detail=None):
        raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on_on_the_device(network, tmp_path):
    here, state = verdict(network, "cpu"), tmp_path / "state.npz"
    with pytest.raises(KeyboardInterrupt):
        verdict(network, "cpu", state=state, progress=Killed())
    with pretend_cuda():
        there = verdict(network, "cuda", state=state)
    assert_equal(here, there)


def test_a_network_is_analysed(network):
    here = verbs.analyse(network, device="cpu", limit_test=20)
    with pretend_cuda():
        there = verbs.analyse(network, device="cuda", limit_test=20)
    assert repr(here) == repr(there)


@pytest.mark.slow
def test_curves(network):
    here = verbs.curve(network, "eps", limit_test=10, device="cpu")
    with pretend_cuda():
        there = verbs.curve(network, "eps", limit_test=10, device="cuda")
    assert repr(here) == repr(there)


def test_a_strangers_model_is_looked_at_and_attacked_where_it_is(network):
    """A module that lies on the device, a function that moves nothing, and a state that knows it again."""
    model, terms = load_model(network, "cpu").model, {"limit_test": 20, "attacks": ["pgd-20"], "protocol": "digits-v0"}
    here = verbs.evaluate(model, "digits-lt", device="cpu", **terms)
    with pretend_cuda():
        there = verbs.evaluate(model.to("cuda"), "digits-lt", **terms)
        function = verbs.evaluate(lambda x: model(x), "digits-lt", device="cuda", **terms)
    for other in (there, function):
        assert all(np.array_equal(bits, other.bits[name]) for name, bits in here.bits.items())


@pytest.mark.slow
def test_a_state_file_on_the_device(network, tmp_path):
    model = load_model(network, "cpu").model
    with pretend_cuda():
        found = verbs.evaluate(
            model, "digits-lt", device="cuda", limit_test=10, attacks=["fgsm"], protocol="digits-v0",
            state=tmp_path / "state.npz", transfer_from=model,
        )  # fmt: skip
    assert set(found.bits) == {"clean", "fgsm", "transfer"}


@pytest.mark.parametrize("method", ["reat", pytest.param("selfdistill", marks=pytest.mark.slow)])
def test_costs_are_estimated(method):
    with pretend_cuda():
        assert measure(make_plan(method, "digits-lt", **TERMS), torch.device("cuda")).training > 0


def test_memory_that_does_not_suffice():
    """A part's gradient comes back to the device where its images are."""
    layer = torch.nn.Linear(4, 2)

    def tight(x):
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return layer(x)

    with pretend_cuda():
        layer.to("cuda")
        split = Splitting(tight)

        def climbed():
            x = torch.rand(8, 4, device="cuda", requires_grad=True)
            return torch.autograd.grad(split(x).sum(), x)[0]

        gradient = split.fit(climbed, 8)
        assert gradient.is_cuda and gradient.shape == (8, 4) and split.parts == 4


@pytest.mark.slow
def test_a_record_is_made_and_verified_on_the_device(tmp_path, judge_here):
    """The command line, from training to the record, which names the card; the CPU attacks the weights again."""
    options = [
        "--dataset",
        "digits-lt",
        "--protocol",
        "smoke",
        "--limit-train",
        "600",
        "--imbalance-ratio",
        "1",
        "--limit-test",
        "50",
    ]
    options += ["--runs-dir", str(tmp_path / "runs"), "--results-dir", str(tmp_path / "results"), "--epochs", "6"]
    with pretend_cuda():
        assert main(["run", "--method", "erm", "--device", "cuda", *options]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    record = own_record(folder / "record.json", load_model(folder, "cpu"))
    assert record.environment.device == NAME
    again = verification.re_evaluate(record, folder, verification.Where("the CPU", device="cpu"), images=None)
    assert (again.clean, again.robust) == tuple(pack(record.bits(name), 1) for name in ("clean", "union"))
    assert record.bits("clean").any()


@pytest.mark.parametrize("slug", ["at", "reat"])
def test_the_plain_loop_that_speed_is_measured_against(slug, monkeypatch):
    """It is what a GPU is timed by first; the double loop of REAT's tail term is on the device, too."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    train = __import__("train")
    names = ("measure", "reference", "train")
    try:
        here = [f() for f in train.steps_of(slug, "small", torch.device("cpu"), 16, 2, ["default"]).values()]
        with pretend_cuda():
            steps = train.steps_of(slug, "small", torch.device("cuda"), 16, 2, ["default"])
            there = [f() for f in steps.values()]
    finally:
        for name in names:
            sys.modules.pop(name, None)
    assert here == pytest.approx(there, rel=1e-5)


@pytest.mark.slow
def test_autoattack_of_its_authors_beside_ours(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    evaluate = __import__("evaluate")
    try:
        with pretend_cuda():
            model, data = evaluate.stand_in_for_a_trained_network("small", 3, torch.device("cuda"))
            data = evaluate._spread(data, 10)
            asked = {"epsilon": 0.05, "batch": 10, "steps": 3, "queries": 8}
            official = evaluate.plain_call(model, to_unit(data.images), data.labels, **asked)()
            ours = evaluate.our_call(model, data, "network", **asked)()
    finally:
        for name in ("measure", "reference", "evaluate"):
            sys.modules.pop(name, None)
    assert np.array_equal(official, ours)
