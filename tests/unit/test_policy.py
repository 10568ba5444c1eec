"""Policies of computing: in the record and the key, the same mathematics, usual ones by the kind of device."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
import torch
from functorch.compile import make_boxed_func
from record_factory import synthetic_record
from torch._dynamo.backends.common import aot_autograd

from ltrobust_bench import verbs
from ltrobust_bench.api import Network, linear
from ltrobust_bench.cards import methods
from ltrobust_bench.compute import forwards
from ltrobust_bench.compute.counting import Counter
from ltrobust_bench.compute.forwards import Forwards, usable_policy
from ltrobust_bench.compute.stand_in import INSTEAD, StandIn
from ltrobust_bench.data.loader import DeviceData
from ltrobust_bench.errors import UsageError
from ltrobust_bench.evaluation.evaluator import evaluate_images
from ltrobust_bench.models import models
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.request import Request
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.progress import Silent
from ltrobust_bench.protocol import Suite, load_protocol
from ltrobust_bench.records.rules.case import Case
from ltrobust_bench.records.rules.done import searched
from ltrobust_bench.report.aggregate import OTHER_PRECISION, boards, method_label
from ltrobust_bench.training import trainer
from ltrobust_bench.training.build import build_method
from ltrobust_bench.training.step import Step, Trainee
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs import evaluations

CPU = torch.device("cpu")
FOLDED = Policy(crafting="folded", memory_format="channels_last")
WINOGRAD = Policy(crafting="winograd", memory_format="channels_last")
SMALL = {"protocol": "smoke", "epochs": 2, "limit_train": 100}


def plan(method="at", **request):
    return make_plan(method, "digits-lt", **{**SMALL, **request})


def test_the_default_policy_is_in_no_key():
    section = plan().run
    assert section.key() == section.model_copy(update={"policy": Policy()}).key()
    keys = {section.key(), *(plan(policy=p).run.key() for p in (FOLDED, WINOGRAD, Policy(compile=True)))}
    assert len(keys) == 4
    assert plan(precision="fp32").run.key() == section.key() != plan(precision="bf16").run.key()


def test_what_a_run_builds_on_is_computed_the_same_way():
    built = plan("crt", policy=FOLDED, precision="bf16")
    assert built.base.run.policy == FOLDED and built.base.run.recipe.precision == "bf16"


def one_step(slug, policy, precision="fp32", dtype=torch.float64, model="small"):
    """Adversarial images, loss and gradients of one step."""
    torch.manual_seed(0)
    recipe = plan(slug).run.recipe.model_copy(update={"precision": precision})
    options = methods.get(slug).card.resolve_options("fixed", {})
    method, _ = build_method(slug, options, [30, 20, 10, 5], "digits-lt", 1, CPU)
    backbone = models.get(model)((1, 8, 8))
    network = Network(backbone, method.head(backbone.features, 4)).to(dtype)
    x, y = torch.rand(12, 1, 8, 8, dtype=dtype), torch.arange(12) % 4
    with torch.no_grad():
        network.train()(x)  # running statistics that are not those of the start
    trainee = Trainee(network, method, recipe, torch.optim.SGD(network.parameters(), lr=0.1), Counter(), policy=policy)
    step = Step(trainee, x, y, epoch=1, epochs=1)
    crafted = step.craft(generator=torch.Generator().manual_seed(0))
    loss = step.update()
    return crafted, loss, torch.cat([p.grad.flatten() for p in network.parameters()])


@pytest.mark.parametrize("slug", ["at", "trades", "reat", "robal"])
@pytest.mark.parametrize("policy", [FOLDED, WINOGRAD], ids=["folded", "winograd"])
def test_the_fast_path_computes_the_plain_ones_loss_and_gradients(slug, policy):
    """In float64 all that differs is the order of operations."""
    for got, wanted in zip(one_step(slug, policy), one_step(slug, Policy()), strict=True):
        assert torch.allclose(got, wanted, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    ("policy", "precision", "pixels", "loss", "gradient"),
    [
        (FOLDED, "fp32", 0.01, 1e-4, 1e-3),
        (WINOGRAD, "fp32", 0.01, 1e-4, 1e-3),
        (FOLDED, "bf16", 0.1, 0.02, 0.5),
        (Policy(), "bf16", 0.1, 0.02, 0.5),
    ],
    ids=["folded", "winograd", "folded-bf16", "bf16"],
)
def test_float32_and_bfloat16_are_within_their_stated_distance(policy, precision, pixels, loss, gradient):
    """At most so many pixels differ, and loss and gradient by so much of their size."""
    plain, fast = (one_step("at", p, q, dtype=torch.float32) for p, q in ((Policy(), "fp32"), (policy, precision)))
    assert ((fast[0] - plain[0]).abs() > 1e-6).float().mean() < pixels
    assert abs(fast[1] - plain[1]) < loss * plain[1]
    assert (fast[2] - plain[2]).norm() < gradient * plain[2].norm()
    assert all(value.dtype == torch.float32 for value in fast)
    if precision == "bf16":
        assert not torch.equal(fast[2], plain[2])


def test_batch_statistics_are_never_folded():
    """In the crafting modes batch and train, batch norm is no fixed map: the network itself is attacked."""
    made = Forwards(Network(models.get("small")((1, 8, 8)), linear(64, 4)), FOLDED)
    x = torch.rand(2, 1, 8, 8)
    assert made.attacked(x, "batch").model == made.attacked(x, "train").model == made.logits
    made.network.eval()
    assert isinstance(made.attacked(x, "eval").model, StandIn)


def test_a_run_on_the_folded_copy_is_recorded_and_agrees(tmp_path):
    records = [
        verbs.run("reat", "digits-lt", **SMALL, policy=p, runs_dir=tmp_path, results_dir=None, device="cpu")
        for p in (Policy(), FOLDED)
    ]
    assert [r.run.policy for r in records] == [Policy(), FOLDED]
    assert not records[1].status.off_recipe
    clean = [r.bits("clean").mean() for r in records]
    assert abs(clean[0] - clean[1]) < 0.1


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_another_precision_is_named_on_the_board_and_ranked(tmp_path, precision):
    """It is a way of training, which cannot cheat a verdict in float32; other settings are off-recipe as before."""
    asked = {**SMALL, "precision": precision, "runs_dir": tmp_path, "results_dir": None, "device": "cpu"}
    record = verbs.run("at", "digits-lt", **asked)
    assert not record.status.off_recipe and record.run.overrides == {"precision": precision}
    assert record.environment.precision == precision and not record.environment.tf32
    recipe = synthetic_record().run.recipe.model_dump() | {"precision": precision}
    (board,) = boards([synthetic_record(recipe=recipe, overrides={"precision": precision}), synthetic_record()])
    other, full = sorted(board.entries, key=lambda e: OTHER_PRECISION not in e.flags)
    assert f"precision={precision}" in other.label and "off-recipe" not in other.flags
    assert (other.rank, full.rank) == (1, 1) and OTHER_PRECISION not in full.flags
    assert plan(precision=precision, settings={"lr": 0.03}).run.off_recipe


def test_on_a_processor_tf32_is_float32(tmp_path):
    tf32, fp32 = (train_plan(plan(precision=p), tmp_path / p, CPU) for p in ("tf32", "fp32"))
    assert tf32.history == fp32.history


def test_a_policy_is_named_on_the_board():
    (board,) = boards([synthetic_record(policy=FOLDED.model_dump()), synthetic_record(seed=1)])
    assert len(board.entries) == 2
    assert any("crafting=folded" in entry.label for entry in board.entries)


def test_attacks_on_a_compiled_network_compute_no_gradient_of_its_weights(monkeypatch):
    """What a compiled backward computes is settled when it is compiled: a convolution's gradient with respect to
    (image, weight, bias), as a pass asks for it."""
    asked = []

    def backward(module, inputs):
        masks = re.findall(r"convolution_backward.*?\[(True|False), (True|False), (True|False)\]", module.code)
        asked.append([mask[1] for mask in masks])
        return make_boxed_func(module.forward)

    backend = aot_autograd(fw_compiler=lambda m, _: make_boxed_func(m.forward), bw_compiler=backward)
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **k: real(f, backend=backend, **k))
    torch.manual_seed(0)
    network = Network(models.get("small")((1, 8, 8)), linear(64, 4))
    made = Forwards(network, Policy(compile=True))
    x = torch.rand(3, 1, 8, 8)
    for mode in ("eval", "batch"):
        images = x.clone().requires_grad_(True)
        network.train(mode != "eval")
        (gradient,) = torch.autograd.grad(made.attacked(x, mode)(images).square().sum(), images)
        again = x.clone().requires_grad_(True)
        (wanted,) = torch.autograd.grad(network(again).square().sum(), again)
        assert torch.allclose(gradient, wanted, rtol=1e-4, atol=1e-6)
    assert len(asked) == 2 and all(mask and set(mask) == {"False"} for mask in asked)
    made.outputs(x).logits.sum().backward()  # the outer loss still has them
    assert set(asked[2]) == {"True"} and all(p.grad is not None for p in network.parameters())


def test_winograd_is_float32():
    with pytest.raises(UsageError, match="float32"):
        plan(precision="bf16", policy=WINOGRAD)


def test_weights_in_another_memory_format_are_resumed_exactly(tmp_path):
    class Stop(Silent):
        def advance(self, units=1, detail=None):
            self.left = getattr(self, "left", 3) - 1
            if self.left < 0:
                raise KeyboardInterrupt

    p = plan(policy=FOLDED)
    whole = train_plan(p, tmp_path / "whole", CPU)
    with pytest.raises(KeyboardInterrupt):
        train_plan(p, tmp_path / "parts", CPU, Stop())
    resumed = train_plan(p, tmp_path / "parts", CPU)
    assert resumed.history == whole.history
    assert resumed.model_path.read_bytes()[-1000:] == whole.model_path.read_bytes()[-1000:]


def test_torch_compile_that_does_not_work_is_left_out_and_explained(monkeypatch, tmp_path):
    def broken(*_, **__):
        raise RuntimeError("no working\ncompiler")

    monkeypatch.setattr(torch, "compile", broken)
    policy, why = usable_policy(CPU, None, "network", True)
    assert policy == Policy() and why == ["without torch.compile, which does not work here: no working compiler"]
    with pytest.raises(UsageError, match="torch.compile, which does not work here: no working compiler"):
        train_plan(plan(policy=Policy(compile=True)), tmp_path, CPU)


def test_a_compiled_network_is_the_network(monkeypatch, tmp_path):
    """With a compiler that changes nothing, so do the weights: every forward goes through what was compiled."""
    made = []

    def compiler(function, **_):
        made.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(forwards, "compile_problem", lambda device: None)
    monkeypatch.setattr(trainer, "compile_problem", lambda device: None)
    policy, why = usable_policy(CPU, "bf16", "folded", True)
    assert not any("compile" in note for note in why) and policy == FOLDED.model_copy(update={"compile": True})
    same = [
        train_plan(plan(policy=p), tmp_path / str(p.compile), CPU).history
        for p in (FOLDED, FOLDED.model_copy(update={"compile": True}))
    ]
    assert same[0] == same[1] and len(made) == 3


def test_without_a_word_the_protocol_says_and_plain_is_the_reference_path_of_any():
    assert usable_policy(CPU) == usable_policy(CPU, "fp32") == (None, [])
    assert usable_policy(CPU, "fp32", "network") == usable_policy(CPU, plain=True) == (Policy(), [])
    for wrong in ({"crafting": "folded"}, {"compiled": True}):
        with pytest.raises(UsageError, match="--plain is the reference path"):
            usable_policy(CPU, plain=True, **wrong)
    for name in ("ltr-linf-v1", "ltr-l2-v1", "ltr-linf-lite-v1"):
        protocol = load_protocol(name)
        assert (protocol.crafting, protocol.evaluation.search) == ("folded", "folded")
    assert plan().run.policy == Policy() and plan().run.key() == plan(policy=Policy()).run.key()


def gives_other_logits(copy, x):
    raise UsageError(f"the folded copy of this network gives other logits; {INSTEAD}")


def test_where_there_is_no_copy_the_network_itself_is_attacked_and_that_is_said(tmp_path):
    """A policy is a wish: the run computes the same function, with one line why."""

    class Heard(Silent):
        said: list[str] = []

        def note(self, text):
            self.said.append(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StandIn, "_verify", gives_other_logits)
        without = train_plan(plan(policy=FOLDED), tmp_path / "without", CPU, Heard())
    wanted = plan(policy=Policy(memory_format="channels_last"))
    assert without.history == train_plan(wanted, tmp_path / "wanted", CPU).history
    told = [line for line in Heard.said if line.startswith("crafting attacks")]
    assert told == ["crafting attacks the network itself: the folded copy of this network gives other logits"]


def test_a_protocol_may_fix_what_is_climbed(monkeypatch, tmp_path):
    """In training and in the suite; it is in the digest, and only another way of computing is named on a board."""
    smoke = load_protocol("smoke")
    suite = smoke.evaluation.model_copy(update={"search": "folded"})
    fixed = smoke.model_copy(update={"crafting": "folded", "evaluation": suite})
    assert len({p.digest("digits-lt") for p in (smoke, fixed, smoke.model_copy(update={"crafting": "folded"}))}) == 3
    monkeypatch.setattr("ltrobust_bench.plan.task.protocol_for", lambda dataset, name: fixed)
    monkeypatch.setattr("ltrobust_bench.report.aggregate.load_protocol", lambda name: fixed)
    asked = Request("at", "digits-lt", protocol="smoke", epochs=1, limit_train=40, limit_test=20)
    usual, other = asked.to_plan(), asked.replace(policy=Policy()).to_plan()
    assert (usual.run.policy, other.run.policy) == (FOLDED, Policy()) and usual.run.key() != other.run.key()
    assert method_label(usual.run) == "at"
    assert method_label(other.run) == "at (crafting=network, memory_format=contiguous)"
    record, plain = (
        verbs.run_plan(p, runs_dir=tmp_path, results_dir=None, device=CPU, progress=Silent()) for p in (usual, other)
    )
    assert (record.result.search, plain.result.search) == ("folded", "network")


@pytest.mark.parametrize(("capability", "said"), [("AVX2", True), ("AVX512", False)])
def test_a_processor_without_bfloat16_is_told(monkeypatch, capability, said):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    policy, notes = usable_policy(CPU, "bf16", "network", False)
    assert policy.memory_format == "channels_last" and bool(notes) == said


def test_an_evaluation_searched_on_a_copy_confirms_on_the_network(tmp_path):
    """The copy's success counts only if the network itself is wrong, in float32."""
    result = train_plan(plan("at-bsl", epochs=4, limit_train=None), tmp_path, CPU)
    loaded = verbs.load_model(result.model_path, device="cpu")
    plain, folded, reduced = (
        verbs.evaluate(result.model_path, device="cpu", attacks=["fgsm", "pgd-5"], search=s)
        for s in ("network", "folded", "bf16")
    )
    for name, bits in plain.bits.items():
        assert (folded.bits[name] == bits).all() and abs(reduced.bits[name].mean() - bits.mean()) < 0.05
    for search, found in (("folded", folded), ("bf16", reduced)):
        record = verbs.finish_run(loaded, verbs.task_of(loaded.run), None, None, Silent(), search=search)
        assert record.result.search == search and record.result.bits.keys() == found.bits.keys()
        assert (record.bits("union") == found.bits["fgsm"] & found.bits["pgd-5"]).all()
        counts = record.result.searched
        broken = sum(int((found.bits["clean"] & ~found.bits[attack]).sum()) for attack in ("fgsm", "pgd-5"))
        assert counts.confirmed + counts.broken_again == broken > 0 and not list(searched(of(record)))
        wrong = counts.model_copy(update={"confirmed": counts.confirmed + 1})
        changed = record.model_copy(update={"result": record.result.model_copy(update={"searched": wrong})})
        assert [finding.field for finding in searched(of(changed))] == ["result.searched.confirmed"]
    assert verbs.finish_run(loaded, verbs.task_of(loaded.run), None, None, Silent()).result.searched is None


def of(record):
    return Case.of(record, None, datetime(2030, 1, 1, tzinfo=UTC))


def test_a_search_in_tf32_ends_before_the_verdict(monkeypatch):
    """On a processor it multiplies as ever; what is seen here is which switch is set when the copy is asked, and when
    the model is. What fools the copy only is searched again on the model."""
    torch.manual_seed(0)
    seen = {"copy": set(), "model": set()}

    def asked(name, sign):
        inner = torch.nn.Linear(64, 10)

        class Model(torch.nn.Module):
            def forward(self, x):
                seen[name].add(torch.backends.cuda.matmul.allow_tf32)
                return sign * inner(x.flatten(1))

        return Model()

    model, copy = asked("model", 1.0), asked("copy", -1.0)
    data = DeviceData(torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8), torch.arange(40) % 10)
    (attack,) = verbs.suite_attacks(load_protocol("smoke"), ["fgsm"])
    suite = Suite(seed=0, batch_size=16, attacks=[attack])
    found = evaluate_images(model, data, classes=10, epsilon=0.1, suite=suite, searched=copy, products="tf32")
    assert seen == {"copy": {True}, "model": {False}}
    confirmed, unconfirmed, again = found.searched
    assert confirmed + again == (found.bits["clean"] & ~found.bits["fgsm"]).sum() and unconfirmed >= again


def test_where_there_is_no_copy_attacks_search_on_the_network_itself():
    class Heard(Silent):
        said = ""

        def note(self, text):
            self.said += text

    heard, x, model = Heard(), torch.rand(2, 1, 8, 8), models.get("small")((1, 8, 8)).eval()
    assert evaluations.possible_search(model, x, "folded", heard) == "folded" and not heard.said
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StandIn, "_verify", gives_other_logits)
        assert evaluations.possible_search(model, x, "folded", heard) == "network"
    assert heard.said == "attacks search on the network itself: the folded copy of this network gives other logits"


def test_a_reused_record_says_what_its_attacks_climbed_if_another_was_asked_for(tmp_path):
    class Heard(Silent):
        said = ""

        def note(self, text):
            self.said += text

    loaded = verbs.load_model(train_plan(plan(), tmp_path, CPU).model_path, device="cpu")
    said = {}
    for search in ("folded", "folded", "network"):
        heard = Heard()
        verbs.finish_run(loaded, verbs.task_of(loaded.run), tmp_path, None, heard, search=search)
        said[search] = heard.said
    assert said["folded"].endswith("record.json")
    assert said["network"].endswith("record.json, whose attacks climbed: folded")


@pytest.mark.parametrize("says", ["what the network says", "the opposite"])
def test_what_a_copy_makes_of_images_counts_for_nothing(monkeypatch, says):
    """A copy without a gradient breaks nothing. One that is wrong about every image stops all attacks at once, so all
    images are attacked again, on the network."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    class Useless(torch.nn.Module):
        def __init__(self, *_):
            super().__init__()

        def forward(self, x):
            logits = model(x.detach())
            return (logits if says == "what the network says" else -logits) + 0.0 * x.flatten(1)[:, :10]

    monkeypatch.setattr(evaluations, "StandIn", Useless)
    attacks = ["fgsm"] if says == "what the network says" else ["fgsm", "apgd-ce"]  # the latter starts with noise
    asked = {"protocol": "smoke", "limit_test": 50, "device": "cpu", "attacks": attacks}
    plain, useless = (verbs.evaluate(model, "digits-lt", search=s, **asked) for s in ("network", "bf16"))
    for attack in attacks:
        assert plain.bits["clean"].sum() > plain.bits[attack].sum()
        wanted = "clean" if says == "what the network says" else attack
        assert (useless.bits[attack] == plain.bits[wanted]).all()
