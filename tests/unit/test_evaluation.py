"""The evaluator: true verdicts, exact resume, refusals."""

from __future__ import annotations

import hashlib
import os
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from perceptron import perceptron
from short_autoattack import SHORT, shorten
from torch import nn

import ltrobust_bench as lt
from ltrobust_bench import verbs
from ltrobust_bench.attacks.apgd_ce import APGDCE
from ltrobust_bench.attacks.fgsm import FGSM
from ltrobust_bench.attacks.registry import read_attack
from ltrobust_bench.attacks.scaled_pgd import ScaledPGD
from ltrobust_bench.compute.counting import Counter, CountingModel
from ltrobust_bench.data.loader import DeviceData
from ltrobust_bench.errors import CheckFailed, CheckpointError, LTBenchError, UnknownNameError
from ltrobust_bench.evaluation.evaluator import evaluate_images, frozen
from ltrobust_bench.evaluation.state import State, kept_identity
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.task import make_task
from ltrobust_bench.progress import Silent
from ltrobust_bench.protocol import Suite, load_protocol
from ltrobust_bench.records.io import read_record
from ltrobust_bench.training.trainer import train_plan
from ltrobust_bench.verbs import runs

CPU = torch.device("cpu")
SUITE = Suite(
    seed=0,
    batch_size=32,
    attacks=[
        FGSM(name="fgsm", kind="fgsm", step_size="epsilon", start="none"),
        ScaledPGD(
            name="scaled", kind="scaled-pgd", steps=3, step_size="epsilon/2", start="uniform", restarts=1,
            alphas=[0.1, 10.0],
        ),
        SHORT,
    ],
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small net trained for ten short epochs, with its task."""
    plan = make_plan("at-bsl", "digits-lt", protocol="smoke", epochs=10)
    result = train_plan(plan, tmp_path_factory.mktemp("run"), CPU)
    return verbs.load_model(result.model_path, device="cpu"), plan.task, result.model_path


@pytest.fixture(scope="module")
def attacked():
    """A network that is quickly attacked, with a task."""
    task = make_task("digits-lt", protocol="smoke")
    return perceptron(task, epochs=8), task


def images(task):
    index = task.split.test
    return DeviceData.of(task.source.test_images[index], task.source.test_labels[index], CPU)


def attack(model, task, suite=SUITE, **settings):
    return evaluate_images(model, images(task), classes=10, epsilon=0.1, suite=suite, **settings)


def in_parts(model, task, **settings):
    """The same in many small batches, with the model's reliability."""
    return attack(model, task, SUITE.model_copy(update={"batch_size": 16}), examined=20, **settings)


class InterruptedAfter(nn.Module):
    """Passes so many images on, and interrupts whoever wants more."""

    def __init__(self, model, images):
        super().__init__()
        self.model, self.left = model, images

    def forward(self, x):
        self.left -= len(x)
        if self.left < 0:
            raise KeyboardInterrupt
        return self.model(x)


def same(a, b):
    assert list(a.bits) == list(b.bits)
    assert all(np.array_equal(a.bits[k], b.bits[k]) for k in a.bits)
    assert np.array_equal(a.broken_by, b.broken_by)
    assert a.reliability == b.reliability


def kept(path):
    """Images passed forward, as far as the state in ``path`` goes."""
    return State.load(path, "a").forwards


def test_robust_bits_imply_clean_ones_and_codes_agree(attacked):
    net, task = attacked
    verdict = attack(net, task)
    clean = verdict.bits["clean"]
    assert 0.3 < clean.mean() < 1
    for bits in verdict.bits.values():
        assert not (bits & ~clean).any()
    assert np.array_equal(verdict.bits["autoattack"], clean & (verdict.broken_by == 0))
    assert set(np.unique(verdict.broken_by)) <= set(range(5)) and verdict.broken_by.max() >= 1


def test_verdict_is_the_official_autoattack(attacked):
    """Image by image, at the same seed and batch size."""
    import logging

    from pyautoattack import AutoAttack

    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    net, task = attacked
    x, y = images(task).images.float() / 255, images(task).labels
    official = shorten(AutoAttack(net, eps=0.1, seed=0, device="cpu", version="standard"))
    with frozen(net):
        _, predicted = official.run_standard_evaluation(x, y, batch_size=32)
    ours = attack(net, task).bits["autoattack"]
    assert np.array_equal(ours, (predicted == y).numpy())
    assert 0 < ours.sum() < len(ours)


@pytest.fixture(scope="module")
def whole(attacked):
    """An uninterrupted evaluation, and how many images it had passed forward at each save."""
    net, task = attacked
    saves = [0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(State, "save", lambda state, path: saves.append(state.forwards))
        verdict = in_parts(net, task)
    assert saves[-1] == verdict.forwards and len(set(saves)) > 25
    return verdict, saves


def test_interrupted_at_ten_random_forwards_repeats_only_the_batch_in_hand(attacked, whole, tmp_path):
    net, task = attacked
    verdict, saves = whole
    path = tmp_path / "s.npz"
    settings = {"identity": "a", "state_path": path}
    moments = sorted(random.Random(0).sample(range(verdict.forwards), 10))
    for moment in moments:
        with pytest.raises(KeyboardInterrupt):
            in_parts(InterruptedAfter(net, moment - kept(path)), task, **settings)
        assert kept(path) == max(s for s in saves if s <= moment)
    assert len({max(s for s in saves if s <= moment) for moment in moments}) >= 4
    left = verdict.forwards - kept(path)
    resumed = in_parts(net, task, **settings)
    same(resumed, verdict)
    assert resumed.forwards_here == left
    assert (resumed.forwards, resumed.backwards) == (verdict.forwards, verdict.backwards)


def test_interrupted_while_saving_the_last_state_stays(attacked, whole, tmp_path, monkeypatch):
    """Every third save: in turn half-way through the temporary file, and before it gets its name."""
    net, task = attacked
    verdict, saves = whole
    path, put, named, nth = tmp_path / "s.npz", Path.write_bytes, Path.replace, 0

    def write(self, content):
        nonlocal nth
        nth += 1
        put(self, content[: len(content) // 2] if nth % 6 == 3 else content)
        if nth % 6 == 3:
            raise KeyboardInterrupt

    def rename(self, target):
        if nth % 6 == 0:
            raise KeyboardInterrupt
        return named(self, target)

    monkeypatch.setattr(Path, "write_bytes", write)
    monkeypatch.setattr(Path, "replace", rename)
    before, interrupted = 0, 0
    while True:
        try:
            resumed = in_parts(net, task, identity="a", state_path=path)
            break
        except KeyboardInterrupt:
            interrupted += 1
        assert interrupted < 60
        assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]
        assert kept(path) in saves and kept(path) >= before
        before = kept(path)
    assert interrupted >= 10
    same(resumed, verdict)
    assert (resumed.forwards, resumed.backwards) == (verdict.forwards, verdict.backwards)


@pytest.mark.parametrize("moved", [0, -86400])
@pytest.mark.parametrize("again", [False, True])
def test_killed_between_record_and_tidying_up(trained, tmp_path, monkeypatch, again, moved):
    """The next call tidies up; one that is to attack again does, instead of reading the finished state."""
    loaded, task, _ = trained
    passed = Counter()
    counted = replace(loaded, model=CountingModel(loaded.model, passed))
    finish, write = partial(verbs.finish_run, counted, task, tmp_path, None, Silent()), runs.write_record

    def killed(record, path):
        write(record, path)
        then = (tmp_path / "evaluation.npz").stat().st_mtime + moved
        os.utime(path, (then, then))  # the clock may have been set back
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs, "write_record", killed)
        finish()
    (tmp_path / ".evaluation.npz.x.tmp").write_bytes(b"half")
    (tmp_path / ".checkpoint-x.tmp").mkdir()
    first, once = read_record(tmp_path / "record.json"), passed.forwards
    assert finish(again=again).result == first.result
    assert passed.forwards - once == (first.cost.evaluation.forwards if again else 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "log.jsonl", "record.json"]


@pytest.mark.parametrize("moved", [0, -86400, 86400])
def test_interrupted_again_goes_on(trained, tmp_path, moved):
    """The state of a second evaluation is kept, whatever the clock says: it can be set back in between."""
    loaded, task, _ = trained
    record = verbs.finish_run(loaded, task, tmp_path, None, Silent())
    half = replace(loaded, model=InterruptedAfter(loaded.model, record.cost.evaluation.forwards // 2))
    with pytest.raises(KeyboardInterrupt):
        verbs.finish_run(half, task, tmp_path, None, Silent(), again=True)
    then = (tmp_path / "record.json").stat().st_mtime + moved
    os.utime(tmp_path / "evaluation.npz", (then, then))
    verbs.finish_run(loaded, task, tmp_path, None, Silent())
    passed = Counter()
    counted = replace(loaded, model=CountingModel(loaded.model, passed))
    assert verbs.finish_run(counted, task, tmp_path, None, Silent(), again=True).result == record.result
    assert 0 < passed.forwards < record.cost.evaluation.forwards


def test_state_of_another_model_or_a_damaged_one_is_not_used(attacked, tmp_path):
    net, task = attacked
    path, whole = tmp_path / "s.npz", attack(net, task)
    attack(net, task, identity="a", state_path=path)
    done = attack(net, task, identity="a", state_path=path)
    assert done.forwards_here == 0
    same(done, whole)
    assert attack(net, task, identity="b", state_path=path).forwards_here == whole.forwards
    path.write_bytes(path.read_bytes()[:50])
    same(attack(net, task, identity="b", state_path=path), whole)
    np.savez(path, meta=np.array('{"of": "a", "forwards": 1, "of another version": 1}'))
    path.write_bytes(path.read_bytes() + hashlib.sha256(path.read_bytes()).digest())
    assert kept(path) == 0


def test_no_damage_to_a_state_raises_or_is_overlooked(attacked, tmp_path):
    """A zip file reads a changed byte as another compression, another offset, another name: it may raise anything."""
    net, task = attacked
    path, rng = tmp_path / "s.npz", random.Random(0)
    attack(net, task, identity="a", state_path=path)
    raw = path.read_bytes()
    for turn in range(600):
        damaged = bytearray(raw)
        for _ in range(rng.choice([1, 1, 4, 100])):
            damaged[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged[: rng.randrange(len(raw))] if turn % 4 == 0 else damaged)
        assert kept_identity(path) == ""
    path.write_bytes(raw)
    assert kept_identity(path) == "a"


def test_a_damaged_state_is_begun_again_and_said_so(attacked, tmp_path):
    net, task = attacked
    path, notes = tmp_path / "s.npz", []
    attack(net, task, identity="a", state_path=path)
    path.write_bytes(path.read_bytes().replace(b"clean.npy", b"klean.npy"))
    progress = Silent()
    progress.note = notes.append
    again = attack(net, task, identity="a", state_path=path, progress=progress)
    assert again.forwards_here == again.forwards > 0
    assert sum("damaged: begun again" in line for line in notes) == 1


def test_batch_size_does_not_change_deterministic_attacks(attacked):
    net, task = attacked
    fgsm = [SUITE.attacks[0]]
    small, large = (
        evaluate_images(
            net, images(task), classes=10, epsilon=0.1,
            suite=SUITE.model_copy(update={"batch_size": b, "attacks": fgsm}),
        ).bits["fgsm"]
        for b in (7, 100)
    )  # fmt: skip
    assert np.array_equal(small, large)


def test_counting_is_true(attacked):
    net, task = attacked
    counter = Counter()
    outer = attack(CountingModel(net, counter), task)
    assert (outer.forwards, outer.backwards) == (counter.forwards, counter.backwards)
    assert outer.backwards > 0


def test_the_model_is_left_as_it_was(attacked):
    net, task = attacked
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)).train()
    module[2].weight.requires_grad_(False)
    attack(module, task)
    assert module.training and module[1].training
    assert [p.requires_grad for p in module.parameters()] == [False, True]
    assert all(p.grad is None for p in module.parameters())
    with pytest.raises(CheckFailed):
        attack(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).train(), task)


class Bad(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x.flatten(1))


@pytest.mark.parametrize(
    ("f", "says"),
    [
        (lambda x: x[:, :3], r"returned \(32, 3\) for 32 images; logits of shape \(32, 10\)"),
        (lambda x: x[:, :10] / 0 * 0, "NaN or infinite"),
        (lambda x: (x, x), "returned tuple"),
        (lambda x: x[:, :10].detach(), "got no gradient"),
    ],
)
def test_impossible_models_are_one_line(attacked, f, says):
    with pytest.raises(CheckFailed, match=says):
        attack(Bad(f), attacked[1])


def test_an_attack_that_leaves_its_ball_is_refused(attacked, monkeypatch):
    from ltrobust_bench.attacks import fgsm

    monkeypatch.setattr(fgsm, "fgsm", lambda model, x, y, **_: (x + 0.11).clamp(0, 1))
    with pytest.raises(LTBenchError, match="left its ball"):
        attack(*attacked)


def test_evaluate_takes_any_module():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    result = lt.evaluate(module, "digits-lt", protocol="smoke", limit_test=30, device="cpu")
    assert result.attacks == ["fgsm", "pgd-5"] and len(result.labels) == 30
    clean, union = result.metrics("clean"), result.metrics()
    assert union.overall <= min(result.metrics(a).overall for a in result.attacks) <= clean.overall
    only = lt.evaluate(module, "digits-lt", protocol="smoke", attacks=["fgsm"], limit_test=30, device="cpu")
    assert only.attacks == ["fgsm"]
    with pytest.raises(UnknownNameError, match="did you mean 'pgd-5'"):
        lt.evaluate(module, "digits-lt", protocol="smoke", attacks=["pgd-50"])


def test_evaluate_a_network_of_ours(trained):
    _, _, path = trained
    result = lt.evaluate(path, device="cpu")
    assert result.attacks == ["fgsm", "pgd-5"]
    with pytest.raises(CheckpointError, match="trained on digits-lt, not on cifar10-lt"):
        lt.evaluate(path, "cifar10-lt")


def test_suite_of_the_main_protocol_states_every_argument():
    attacks = {a.name: a for a in load_protocol("ltr-linf-v1").evaluation.attacks}
    assert list(attacks) == ["fgsm", "pgd-20", "pgd-100", "mim-20", "cw-20", "scaled-pgd-20", "autoattack"]
    aa = attacks["autoattack"]
    assert (aa.steps, aa.restarts, aa.targets, aa.queries, aa.p_init, aa.rho) == (100, 1, 9, 5000, 0.8, 0.75)
    assert attacks["scaled-pgd-20"].alphas == [0.1, 1, 10, 100]


def test_official_defaults_are_what_the_protocol_states():
    """The package's `standard` version, read from the package itself."""
    from pyautoattack import AutoAttack

    official = AutoAttack(nn.Linear(1, 1), eps=0.1, seed=0, version="standard")
    aa = next(a for a in load_protocol("ltr-linf-v1").evaluation.attacks if a.kind == "autoattack")
    assert official.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert official.apgd.n_iter == official.apgd_targeted.n_iter == official.fab.n_iter == aa.steps
    assert official.apgd.n_restarts == official.apgd_targeted.n_restarts == official.fab.n_restarts == aa.restarts
    assert official.apgd_targeted.n_target_classes == official.fab.n_target_classes == aa.targets
    assert (official.square.n_queries, official.square.p_init) == (aa.queries, aa.p_init)
    assert official.apgd.thr_decr == official.apgd_targeted.thr_decr == aa.rho


def test_task_epsilon_is_the_papers_float():
    assert make_task("digits-lt").epsilon == 0.15
    from ltrobust_bench.numbers import number

    assert number("8/255") == 8 / 255 and number("epsilon/4", 8 / 255) == 2 / 255


def test_single_attacks_are_autoattacks_own(trained):
    """APGD-CE alone breaks what AutoAttack's first stage breaks; each stays in its ball and is named as asked."""
    loaded, task, _ = trained
    arguments = {"steps": 6, "restarts": 1, "rho": 0.75}
    alone = [APGDCE(name="apgd-ce", kind="apgd-ce", **arguments)]
    first = attack(loaded.model, task)
    only = attack(loaded.model, task, attacks=alone)
    assert np.array_equal(first.bits["clean"] & ~only.bits["apgd-ce"], first.broken_by == 1)
    for name in ("apgd-dlr", "apgd-t", "fab-t", "square"):
        small = {"apgd-t": {"targets": 2}, "fab-t": {"targets": 2, "rho": None}}.get(name, {})
        if name == "square":
            small = {"steps": None, "rho": None, "queries": 20, "p_init": 0.8}
        stated = {k: v for k, v in {**arguments, **small}.items() if v is not None}
        spec = read_attack({"name": name, "kind": name, **stated})
        bits = attack(loaded.model, task, attacks=[spec]).bits
        assert not (bits[name] & ~bits["clean"]).any() and bits[name].sum() < bits["clean"].sum()


def test_users_can_ask_for_single_attacks_by_name(trained):
    _, _, path = trained
    result = lt.evaluate(path, attacks=["apgd-dlr", "fgsm"], limit_test=20)
    assert result.attacks == ["fgsm", "apgd-dlr"] or result.attacks == ["apgd-dlr", "fgsm"]
    with pytest.raises(UnknownNameError, match="square"):
        lt.evaluate(path, attacks=["sqaure"])


def test_transfer_from_itself_is_pgd_and_from_another_is_weaker(trained):
    loaded, _, path = trained
    torch.manual_seed(1)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    itself, stranger, both = (
        lt.evaluate(path, transfer_from=source, attacks=attacks)
        for source, attacks in ((loaded.model, None), (other, None), (path, ["fgsm"]))
    )
    assert itself.attacks == ["transfer"] and both.attacks == ["fgsm", "transfer"]
    assert itself.bits["transfer"].sum() < stranger.bits["transfer"].sum() <= stranger.bits["clean"].sum()
    assert np.array_equal(both.bits["transfer"], itself.bits["transfer"])
