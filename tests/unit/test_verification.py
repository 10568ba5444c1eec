"""Verification of records: what confirms one, what disputes one, what lowers one, and files that say something else."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from record_factory import measured, synthetic_record

from ltrobust_bench import verbs
from ltrobust_bench.cli.main import main
from ltrobust_bench.errors import CheckpointError, RecordError, UsageError
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.progress import Silent
from ltrobust_bench.records.io import find_records, write_record
from ltrobust_bench.records.trust import heard
from ltrobust_bench.records.validate import validate
from ltrobust_bench.records.verify import (
    objections,
    read_verification,
    standing,
    tolerated,
    verification,
    write_verification,
)
from ltrobust_bench.report.aggregate import boards
from ltrobust_bench.verbs import rechecking
from ltrobust_bench.verbs.counterexamples import try_examples
from ltrobust_bench.verbs.rechecking import _otherwise, recheck, statements_in
from ltrobust_bench.verbs.verification import Where, re_evaluate, retrain

BY = "somebody else"
HERE = Where(BY, device="cpu")
pytestmark = pytest.mark.usefixtures("judge_here")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A real run under the smoke protocol, and its folder."""
    runs = tmp_path_factory.mktemp("runs")
    record = verbs.run("at", "digits-lt", protocol="smoke", runs_dir=runs, results_dir=None, device="cpu")
    return record, runs / record.run.folder_name()


def stated(record, kind="re-evaluated", places=None, clean=None, robust=None, weights=None):
    at = np.arange(sum(record.run.test_counts)) if places is None else np.asarray(places)
    clean = record.bits("clean")[at] if clean is None else clean
    robust = record.bits("union")[at] if robust is None else robust
    weights = weights or record.result.weights_sha256
    return verification(record, kind, places, clean, robust, weights, BY, record.environment)


def test_attacking_all_images_again_gives_the_record(finished):
    record, folder = finished
    statement = re_evaluate(record, folder, HERE, images=None)
    here = {name: getattr(statement, name) for name in ("environment", "graph_sha256", "reliability")}
    assert statement.reliability == record.reliability
    assert statement == stated(record).model_copy(update=here) and statement.graph_sha256
    assert standing(record, [statement]).level == "re-evaluated"


def test_a_sample_is_drawn_by_its_seed_and_confirms(finished):
    record, folder = finished
    first, again, other = (re_evaluate(record, folder, HERE, images=60, seed=s) for s in (0, 0, 1))
    assert first.places == again.places != other.places and first.images == 60
    assert objections(record, first) == objections(record, other) == []


def test_training_again_gives_the_record(finished):
    record, _ = finished
    statement = retrain(record, HERE)
    assert statement.weights_sha256 == record.result.weights_sha256
    assert standing(record, [statement]).level == "retrained"


@pytest.mark.parametrize("how", [{"policy": Policy(crafting="folded")}, {"precision": "bf16"}])
def test_training_again_is_done_as_the_record_was(how, tmp_path):
    plan = make_plan("at", "digits-lt", protocol="smoke", **how)
    record = verbs.run_plan(plan, runs_dir=tmp_path, results_dir=None, device=torch.device("cpu"), progress=Silent())
    assert standing(record, [retrain(record, HERE)]).level == "retrained"


def test_other_weights_are_refused(finished, tmp_path):
    record, folder = finished
    other = verbs.run("at", "digits-lt", protocol="smoke", seed=1, runs_dir=tmp_path, results_dir=None, device="cpu")
    with pytest.raises(CheckpointError, match="does not hold the weights of record"):
        re_evaluate(other, folder, HERE)


def test_a_record_that_claims_too_much_is_disputed(finished):
    record, _ = finished
    robust = record.bits("union").copy()
    allowed = tolerated(len(robust))
    for fallen, level in ((allowed, "re-evaluated"), (allowed + 1, "claimed")):
        changed = robust.copy()
        changed[np.flatnonzero(robust)[:fallen]] = False
        found = standing(record, [stated(record, robust=changed)])
        assert found.level == level and bool(found.disputed) == (level == "claimed")
        assert found.broken.sum() == fallen, "what was broken stays broken, whether or not it disputes the record"
    weights = stated(record, weights="0" * 64)
    assert "other weights" in objections(record, weights)[0]


@pytest.mark.parametrize("images", [50, 100, 500, 10_000])
def test_chance_disputes_one_honest_record_in_a_thousand(images):
    """P(X > tolerated) < 0.001 <= P(X >= tolerated) for X binomial with 0.5 %, summed term by term."""
    terms = [math.comb(images, k) * 0.005**k * 0.995 ** (images - k) for k in range(tolerated(images) + 1)]
    assert 1 - sum(terms) < 0.001 <= 1 - sum(terms[:-1])


def test_one_dispute_outweighs_confirmations(finished):
    record, _ = finished
    wrong = stated(record, robust=np.zeros(len(record.labels()), dtype=bool))
    assert standing(record, [stated(record), wrong]).level == "claimed"


def test_training_again_may_differ_by_what_seeds_differ(finished):
    record, _ = finished
    clean = record.bits("clean")
    nothing = stated(record, "retrained", clean=np.zeros_like(clean), robust=np.zeros_like(clean), weights="1" * 64)
    assert len(objections(record, nothing)) >= 1 and "clean accuracy is -" in objections(record, nothing)[0]
    same = stated(record, "retrained", weights="1" * 64)
    assert objections(record, same) == [] and standing(record, [same]).broken is None


def linear_break(record, folder, epsilon):
    """Examples by one big signed step, and which of them fool the network."""
    loaded, task = verbs.load_model(folder, device="cpu"), verbs.task_of(record.run)
    index = task.split.test
    x = torch.from_numpy(task.source.test_images[index]).float() / 255
    y = torch.from_numpy(np.asarray(task.source.test_labels[index]))
    moving = x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(loaded.model(moving), y).backward()
    moved = (x + epsilon * moving.grad.sign()).clamp(0, 1)
    return index, moved.numpy(), (loaded.model(moved).argmax(1) != y).numpy()


def test_examples_lower_a_record_by_the_images_that_they_break(finished, tmp_path):
    record, folder = finished
    index, images, fooled = linear_break(record, folder, record.run.epsilon)
    np.savez(tmp_path / "found.npz", index=index[::-1], images=images[::-1])
    statement = try_examples(record, folder, tmp_path / "found.npz", HERE)
    found = standing(record, [statement])
    expected = fooled & record.bits("union")
    assert found.level == "claimed" and found.disputed == ()
    assert (np.zeros(1, dtype=bool) if found.broken is None else found.broken).sum() == expected.sum()


def test_examples_that_leave_the_ball_are_refused(finished, tmp_path):
    record, folder = finished
    index, images, _ = linear_break(record, folder, 1.2 * record.run.epsilon)
    path = tmp_path / "found.npz"

    def refused(**arrays):
        np.savez(path, **arrays)
        with pytest.raises(UsageError) as error:
            try_examples(record, folder, path, HERE)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "leave the ball or the box" in refused(index=index, images=images)
    fine = linear_break(record, folder, 0.0)[1]
    assert "is no image of digits-lt" in refused(index=index + 10_000, images=fine)
    assert "stands twice" in refused(index=np.zeros(len(index), dtype=int) + index[0], images=fine)
    assert "is needed" in refused(index=index, images=fine[:, :, :4])
    assert "one whole number for each" in refused(index=index[:3], images=fine)
    assert "leave the ball" in refused(index=index, images=np.full_like(fine, np.nan))
    assert "must be float" in refused(index=index, images=fine.astype(np.int64))
    assert "arrays `index` and `images`" in refused(images=fine)
    path.write_bytes(b"PK no zip")
    with pytest.raises(UsageError, match=r"is no \.npz"):
        try_examples(record, folder, path, HERE)


def filed(record, folder, results, *, shipped=True):
    """A board of one record, whose network lies there or not."""
    write_record(record, results / "records" / record.run.record_path())
    (results / "signers").write_text("# nobody yet\n")
    if shipped:
        (results / "weights").mkdir()
        shutil.copy(folder / "model.safetensors", results / "weights" / "net.safetensors")
        index = {"smoke:at": {"file": "net.safetensors", "weights_sha256": record.result.weights_sha256}}
        (results / "weights" / "index.json").write_text(json.dumps(index))


def test_what_holds_when_it_is_computed_again(finished, tmp_path):
    record, folder = finished
    filed(record, folder, tmp_path)
    index, images, fooled = linear_break(record, folder, record.run.epsilon)
    np.savez(tmp_path / "found.npz", index=index[fooled], images=images[fooled])
    found = try_examples(record, folder, tmp_path / "found.npz", HERE)
    content = (tmp_path / "found.npz").read_bytes()
    forged = stated(record, "counterexamples", robust=np.zeros(record.images, dtype=bool))
    forged = forged.model_copy(update={"examples_sha256": hashlib.sha256(content).hexdigest()})
    nothing = np.zeros(60, dtype=bool)
    flagged = {"reliability": measured(zero_gradients=0.5)}
    left = np.flatnonzero(record.bits("union"))
    all_stand = np.ones(len(left), dtype=bool)
    thorough = partial(verification, record, "thorough", left, all_stand, all_stand, record.result.weights_sha256, BY,
                       record.environment)  # fmt: skip
    held = {
        write_verification(stated(record, places=range(70)).model_copy(update=flagged), tmp_path): False,
        write_verification(thorough(attacks={"nothing at all": 0}), tmp_path): False,
        write_verification(stated(record, places=range(60)), tmp_path): True,
        write_verification(stated(record, places=range(60), clean=nothing, robust=nothing), tmp_path): False,
        write_verification(found, tmp_path, content): True,
        write_verification(forged, tmp_path, content): False,
    }
    statements = statements_in(tmp_path)
    assert {one.path for one, _ in statements} == set(held)
    for one, about in statements:
        assert (recheck(one, about, device="cpu") == []) == held[one.path], one.path
    with pytest.raises(RecordError, match="no statement about a record"):
        statements_in(tmp_path, [tmp_path / "found.npz"])


def test_what_is_said_of_other_images_or_attacks_does_not_hold(finished):
    record, _ = finished
    made = verification(record, "thorough", [1, 2, 5], np.ones(3, bool), np.array([True, True, False]), "c" * 64, BY,
                        record.environment, attacks={"pma": 1, "nes": 0})  # fmt: skip
    others = made.model_copy(update={"places": [1, 2, 6]})
    named = made.model_copy(update={"attacks": {"pma": 1}})
    counted = made.model_copy(update={"attacks": {"pma": 0, "nes": 1}})
    assert _otherwise(made, made, 0) == []
    assert _otherwise(others, made, 3) == ["it speaks of other images than those that there are"]
    assert _otherwise(named, made, 3) == ["it names the attacks pma, and there are pma, nes"]
    assert len(_otherwise(counted, made, 0)) == 2


def test_where_another_network_is_trained_only_what_can_be_compared_holds(finished, monkeypatch):
    """On another machine: a thorough evaluation of the weights cannot be tried, and what is far off does not hold. The
    network that was trained is the one that is attacked: nothing is trained twice."""
    record, folder = finished
    other = "d" * 64
    again = stated(record, "retrained", weights=other)
    monkeypatch.setattr(rechecking, "_network", lambda *_: nullcontext(folder))
    monkeypatch.setattr(rechecking, "read_stored", lambda _: (SimpleNamespace(weights_sha256=other), {}))
    done = []
    for name in ("retrain", "attacked_again"):
        monkeypatch.setattr(rechecking, name, lambda *_, name=name, **__: done.append(name) or again)
    left = np.flatnonzero(record.bits("union"))
    ones = np.ones(len(left), dtype=bool)
    thorough = verification(record, "thorough", left, ones, ones, record.result.weights_sha256, BY, record.environment,
                            attacks={"pma": 0})  # fmt: skip
    for statement, says in (
        (thorough, "cannot be tried: this machine trains another network"),
        (stated(record, places=range(60)), None),
        (stated(record, places=range(60), clean=np.ones(60, bool), robust=np.ones(60, bool)), "come out otherwise"),
        (stated(record, "retrained", weights="e" * 64, clean=np.ones(record.images, bool),
                robust=np.ones(record.images, bool)), "come out otherwise"),
    ):  # fmt: skip
        found = recheck(SimpleNamespace(statement=statement, results=None, path=None), record)
        assert found == [] if says is None else says in " ".join(found), statement.kind
    assert done == ["attacked_again", "attacked_again", "retrain"]


@pytest.mark.slow
def test_a_network_that_is_not_there_is_trained_again(finished, tmp_path, capsys):
    record, folder = finished
    filed(record, folder, tmp_path, shipped=False)
    write_verification(stated(record, places=range(60)), tmp_path)
    write_verification(stated(record, "retrained", clean=np.zeros(record.images, dtype=bool),
                              robust=np.zeros(record.images, dtype=bool)), tmp_path)  # fmt: skip
    code = main(["record", "recheck", "--results-dir", str(tmp_path), "--device", "cpu"])
    out = capsys.readouterr().out
    assert code == 1 and "re-evaluated" in out and ": holds" in out
    assert "images come out otherwise" in out and "2 statements looked at, 1 do not hold" in out


def test_statements_are_files_that_say_what_they_are_called(finished, tmp_path):
    record, _ = finished
    path = write_verification(stated(record, places=[1, 5, 7]), tmp_path)
    found, problems = heard([tmp_path / "records"])
    assert problems == [] and [one.statement for one in found] == [read_verification(path)]
    path.write_text(path.read_text().replace(BY, "the author"))
    with pytest.raises(RecordError, match="was it edited"):
        read_verification(path)
    path.write_text("{}")
    assert "is no verification" in heard([tmp_path])[1][0]
    assert heard([tmp_path / "elsewhere"]) == ([], [])


def test_places_and_bits_belong_together(finished):
    record, _ = finished
    for places in ([5, 1, 7], [1, 1, 7]):
        with pytest.raises(RecordError, match="increasing"):
            stated(record, places=places)
    with pytest.raises(RecordError, match="one line"):
        verification(record, "re-evaluated", None, record.bits("clean"), record.bits("union"), "0" * 64, "a\nb",
                     record.environment)  # fmt: skip
    beyond = stated(record, places=[0, 1]).model_copy(update={"places": [0, 100_000]})
    assert "another test set" in objections(record, beyond)[0] and standing(record, [beyond]).level == "claimed"


# What follows on a board: synthetic records, whose statements are made up to fit.


def board_with(results, *statements, seeds=(0, 1), entries=1):
    """The first entry of a public board that holds synthetic records and statements about them."""
    made = [synthetic_record(method="at", seed=s) for s in seeds]
    for record in made:
        write_record(record, results / "records" / record.run.record_path())
    (results / "signers").write_text("# nobody yet\n")
    for seed, kind, places, robust in statements:
        statement, images = stated(made[seed], kind, places, robust=robust), None
        if kind == "counterexamples":
            images = b"the images"
            statement = statement.model_copy(update={"examples_sha256": hashlib.sha256(images).hexdigest()})
        write_verification(statement, results, images)
    (board,) = boards(find_records([results / "records"])[0])
    assert len(board.entries) == entries
    return made, board.entries[0]


def test_what_nobody_verified_is_shown_and_not_ranked(tmp_path):
    _, entry = board_with(tmp_path)
    assert (entry.level, entry.rank) == ("claimed", None) and "claimed" in entry.flags
    assert "needs 5 seeds" not in entry.flags


def test_a_claimed_run_stands_beside_the_verified_ones_and_takes_no_rank(tmp_path):
    """Or anybody could take a rival's rank by adding a run of his method."""
    made, _ = board_with(tmp_path, (0, "re-evaluated", None, None), entries=2)
    (board,) = boards(find_records([tmp_path / "records"])[0])
    found = {entry.label: (entry.rank, [record.id for record in entry.runs]) for entry in board.entries}
    assert found == {"at": (1, [made[0].id]), "at (claimed)": (None, [made[1].id])}


def test_a_disputed_run_takes_the_rank_of_its_entry_if_somebody_had_verified_it(tmp_path):
    """Or anybody could take a rival's rank by adding a bad run of his method and having it looked at."""
    nothing = np.zeros(synthetic_record(method="at").images, dtype=bool)
    made = [(0, "re-evaluated", None, None), (1, "re-evaluated", None, nothing)]
    _, aside = board_with(tmp_path / "a", *made, entries=2)
    assert aside.rank == 1 and "disputed" not in aside.flags
    _, entry = board_with(tmp_path / "b", *made, (1, "retrained", None, None))
    assert entry.rank is None and "disputed" in entry.flags


def test_an_entry_is_verified_as_far_as_its_least_verified_run(tmp_path):
    _, entry = board_with(tmp_path, (0, "retrained", None, None), (1, "re-evaluated", range(60), None))
    assert (entry.level, entry.rank) == ("re-evaluated", 1)


def test_where_there_is_no_folder_for_verifications_own_runs_are_ranked(tmp_path):
    record = synthetic_record(method="at")
    write_record(record, tmp_path / record.run.record_path())
    (board,) = boards(find_records([tmp_path])[0])
    assert (board.entries[0].level, board.entries[0].rank) == (None, 1)


def test_broken_images_leave_the_worst_case_and_nothing_else(tmp_path):
    record = synthetic_record(method="at")
    standing_images = np.flatnonzero(record.bits("union"))[:4]
    nothing = np.zeros(4, dtype=bool)
    made, entry = board_with(
        tmp_path, (0, "re-evaluated", None, None), (0, "counterexamples", standing_images, nothing), seeds=(0,)
    )
    assert "lowered" in entry.flags and entry.level == "re-evaluated"
    read = entry.runs[0]
    assert (read.bits("union").sum(), made[0].bits("union").sum() - 4) == (made[0].bits("union").sum() - 4,) * 2
    assert entry.percent("union", "overall") == pytest.approx(100 * read.bits("union").mean())
    assert (read.bits("autoattack") == made[0].bits("autoattack")).all() and read.result == made[0].result


def test_a_statement_about_no_record_or_a_wrong_place_is_a_problem(tmp_path):
    made, _ = board_with(tmp_path, (0, "re-evaluated", None, None), entries=2)
    other = stated(synthetic_record(method="trades"))
    write_verification(other, tmp_path)
    moved = stated(made[1]).model_copy(update={"path": "elsewhere.json"})
    write_verification(moved, tmp_path)
    found = [p for p in validate([tmp_path / "records"]).problems if p.rule == "verification"]
    assert {(p.field, p.seen) for p in found} == {("record", repr(other.record)), ("path", "'elsewhere.json'")}


@pytest.mark.parametrize("kind", ["re-evaluated", "retrained"])
@pytest.mark.parametrize(("images", "level"), [(1, "claimed"), (49, "claimed"), (50, "%s")])
def test_a_handful_of_images_confirms_nothing(tmp_path, kind, images, level):
    """Of one image, chance explains even a broken one; two statements are no larger sample than each."""
    made, entry = board_with(tmp_path, (0, kind, range(images), None), (0, kind, range(images - 1, -1, -1)[::-1], None),
                             seeds=(0,))  # fmt: skip
    assert (entry.level, entry.rank is None) == (level.replace("%s", kind), level == "claimed")
    assert "disputed" not in entry.flags
    found = [(p.field, p.seen) for p in validate([tmp_path / "records"]).problems if p.rule == "verification"]
    assert found == ([("images", str(images))] if level == "claimed" else [])


def test_a_small_test_set_is_looked_at_whole():
    bits = dict.fromkeys(("clean", "autoattack"), [True] * 30)
    record = synthetic_record(bits, train_counts=[9, 6, 3])
    assert standing(record, [stated(record)]).level == "re-evaluated"
    assert standing(record, [stated(record, places=range(29))]).level == "claimed"


def test_too_small_a_sample_is_refused_before_it_is_attacked(finished):
    record, folder = finished
    with pytest.raises(UsageError, match="take at least 50"):
        re_evaluate(record, folder, HERE, images=49)
