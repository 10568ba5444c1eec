"""Statements by others: which count, who may make them, and that what does not count changes nothing."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from record_factory import measured, synthetic_record

from ltrobust_bench.cli.main import main
from ltrobust_bench.errors import RecordError, UsageError
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.records import signing
from ltrobust_bench.records import weights as weight_files
from ltrobust_bench.records.io import find_records, read_record, write_record
from ltrobust_bench.records.retract import retract
from ltrobust_bench.records.signing import keys, sign, signature_of
from ltrobust_bench.records.trust import Results
from ltrobust_bench.records.validate import validate
from ltrobust_bench.records.verify import Verification, examples_of, verification, write_verification
from ltrobust_bench.report.aggregate import boards

needs_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen")
CREATED = "2026-06-15T12:00:00Z"
JANE, MAX = "jane@example.org", "max@example.org"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Private keys by name, made once; the public one lies beside each."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("jane", "max", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)], check=True)
    return folder


@pytest.fixture
def board(tmp_path, monkeypatch, pairs):
    """A public board of one record that nobody can compute again, in a git checkout; Jane and Max hold keys."""
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet", "--initial-branch", "main")
    listed(pairs, jane=JANE, max=MAX)
    commit("start", MAX)
    git("tag", "start")
    made = synthetic_record(method="at", dataset="cifar10-lt")
    write_record(made, tmp_path / "results" / "records" / made.run.record_path())
    commit("the record", "author@example.org")
    return made


def git(*arguments):
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def commit(message, email):
    git("add", "--all")
    git("-c", f"user.name={email}", "-c", f"user.email={email}", "commit", "--quiet", "--message", message)


def results():
    return Path("results")


def listed(pairs, options="", **names):
    lines = [f"{name} {options}{(pairs / f'{key}.pub').read_text().strip()}" for key, name in names.items()]
    results().mkdir(exist_ok=True)
    (results() / "signers").write_text("# keys\n" + "\n".join(lines) + "\n")


def stated(record, kind="re-evaluated", robust=None, examples=None):
    """A statement about a record, filed; confirms it unless told otherwise."""
    robust = record.bits("union") if robust is None else robust
    environment = record.environment.model_copy(update={"created": CREATED})
    digest = None if examples is None else hashlib.sha256(examples).hexdigest()
    weights = record.result.weights_sha256
    bits = record.bits("clean"), robust
    statement = verification(record, kind, None, *bits, weights, "Jane", environment, digest, graph_sha256="d" * 64,
                             reliability=None if kind == "counterexamples" else measured())  # fmt: skip
    return write_verification(statement, results(), examples)


def standing():
    (record,) = find_records([results() / "records"])[0]
    return record.standing


def roles(against=None):
    return [str(p) for p in validate([results() / "records"], against=against).problems if p.rule == "roles"]


@needs_keygen
def test_a_statement_counts_if_a_listed_key_signed_it(board, pairs):
    path = stated(board)
    assert (standing().level, standing().said[0].counts) == ("claimed", False)
    sign(path, pairs / "stranger")
    assert standing().level == "claimed" and "no key in signers" in standing().said[0].why
    sign(path, pairs / "jane")
    assert (standing().level, standing().said[0].why) == ("re-evaluated", f"signed by {JANE}")
    signature_of(path).write_text(signature_of(path).read_text()[:-40])
    assert standing().level == "claimed"


@needs_keygen
def test_a_signature_is_of_one_text_and_for_one_purpose(board, pairs):
    path = stated(board)
    shutil.copy(path, "elsewhere")
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", str(pairs / "jane"), "elsewhere"],
        check=True, capture_output=True,
    )  # fmt: skip
    shutil.move("elsewhere.sig", signature_of(path))
    assert standing().level == "claimed", "signed for git"
    other = stated(board, "retrained")
    sign(other, pairs / "jane")
    shutil.copy(signature_of(other), signature_of(path))
    other.unlink()
    assert standing().level == "claimed", "the signature of another statement"


@needs_keygen
def test_a_retired_key_keeps_what_it_signed_and_a_lost_one_does_not(board, pairs):
    sign(stated(board), pairs / "jane")
    for options, level in (
        ('valid-before="20260701" ', "re-evaluated"),
        ('valid-before="20260601" ', "claimed"),
        ('valid-after="20260601" ', "re-evaluated"),
        ('valid-after="20260701" ', "claimed"),
    ):
        listed(pairs, options, jane=JANE)
        assert standing().level == level, options
    listed(pairs, max=MAX)
    assert standing().level == "claimed"


@needs_keygen
def test_a_retired_key_signs_nothing_new(board, pairs):
    sign(stated(board), pairs / "jane")
    listed(pairs, 'valid-before="20260701" ', jane=JANE)
    commit("a statement of June, they say", JANE)
    assert standing().level == "re-evaluated", "by its date alone"
    (problem,) = roles("HEAD~1")
    assert "counts today: this signature is new" in problem
    assert roles() == [], "what is there already stays"


@needs_keygen
def test_nobody_verifies_his_own(board, pairs):
    path = stated(board)
    sign(path, pairs / "jane")
    commit("verified", JANE)
    assert roles("HEAD~1") == []
    (problem,) = roles("start")
    assert "a pull request does not verify what it adds" in problem
    listed(pairs, jane=f"{JANE},Author@example.org")
    (problem,) = roles()
    assert "must not be by author@example.org, who added record" in problem


@needs_keygen
def test_what_is_new_is_signed_once_there_is_a_key_and_was_judged_by_a_graph(board, pairs):
    """What can be computed again counts unsigned; a pull request adds none of it as soon as somebody could sign."""
    path = stated(board)
    commit("a statement", JANE)
    (problem,) = roles("HEAD~1")
    assert "must be signed" in problem and roles() == []
    listed(pairs)
    assert roles("HEAD~1") == []
    old = Verification.model_validate_json(path.read_text())
    path.unlink()
    for missing, rule in (("graph_sha256", "graph_sha256"), ("reliability", "reliability")):
        made = write_verification(old.model_copy(update={missing: None}), results())
        commit("another, as statements were before", JANE)
        (problem,) = roles("HEAD~1")
        assert f"{rule}: must be there" in problem
        made.unlink()


@needs_keygen
def test_a_retraction_counts_if_it_is_signed(board, pairs):
    path = retract(board.id, "trained on the test set", results(), {board.id: board.run.record_path()})
    (said,) = standing().said
    assert (said.kind, said.counts) == ("retraction", False) and "asks to retract it" in said.says
    assert validate([results() / "records"]).retracted == 0
    sign(path, pairs / "max")
    assert find_records([results() / "records"]) == ([], []) and validate([results() / "records"]).retracted == 1


def test_a_strangers_dispute_and_his_counterexamples_change_nothing(board):
    nothing = np.zeros(board.images, dtype=bool)
    stated(board, robust=nothing)
    stated(board, "counterexamples", robust=nothing, examples=b"images")
    found = standing()
    assert (found.level, found.broken, found.disputed) == ("claimed", None, ())
    assert [said.counts for said in found.said] == [False, False]
    assert f"breaks {int(board.bits('union').sum())} images" in found.said[0].says + found.said[1].says


@needs_keygen
def test_counterexamples_count_only_with_their_images(board, pairs):
    nothing = np.zeros(board.images, dtype=bool)
    path = stated(board, "counterexamples", robust=nothing, examples=b"images")
    sign(path, pairs / "max")
    assert standing().broken.sum() == board.bits("union").sum()
    examples_of(path).write_bytes(b"others")
    assert standing().broken is None and "others than those" in standing().said[0].why
    examples_of(path).unlink()
    assert standing().broken is None and "not there" in standing().said[0].why
    bare = stated(board, "counterexamples", robust=nothing)
    sign(bare, pairs / "max")
    assert not any(said.counts for said in standing().said), "signed, but nobody can try them"


def test_what_can_be_computed_again_needs_no_key(board, tmp_path):
    weights = results() / "weights"
    stated(board)
    weights.mkdir()
    digest = board.result.weights_sha256
    shipped = weight_files.add(weights, "lite:at", b"a network", digest, board.run.record_path())
    (weights / shipped.file).write_bytes(b"another")
    assert standing().level == "claimed", "named, but another network lies there"
    (weights / shipped.file).write_bytes(b"a network")
    assert standing().level == "re-evaluated" and "its network is in the repository" in standing().said[0].why
    digits = synthetic_record(method="at")
    assert "trained again" in Results(tmp_path / "elsewhere").again(digits), "its data come with scikit-learn"


def test_a_run_of_a_small_protocol_on_known_images_can_be_done_again_by_anybody(root, tmp_path, monkeypatch):
    (path, *_) = sorted((root / "results/records/ltr-linf-lite-v1/cifar10-lt-ir50/at").glob("*-s1-*.json"))
    lite, elsewhere = read_record(path), Results(tmp_path / "elsewhere")
    assert "its data are known" in elsewhere.again(lite)
    for run in (
        lite.run.model_copy(update={"protocol": "ltr-linf-v1"}),
        lite.run.model_copy(update={"protocol": "ltr-linf-lite-v9"}),
        lite.run.model_copy(update={"protocol_digest": "0" * 64}),
        lite.run.model_copy(update={"dataset": "folder-photos"}),
        lite.run.model_copy(update={"dataset": "tiny-imagenet-lt"}),
    ):
        assert elsewhere.again(lite.model_copy(update={"run": run})) == "", (run.protocol, run.dataset)
    large = load_protocol("ltr-linf-lite-v1").model_copy(update={"small": False})
    assert large.digest("cifar10-lt") == lite.run.protocol_digest, "it is no term of a run"
    monkeypatch.setattr("ltrobust_bench.records.trust.load_protocol", lambda _: large)
    assert elsewhere.again(lite) == ""


def test_without_a_list_of_keys_a_board_is_ones_own(board):
    stated(board)
    (results() / "signers").unlink()
    assert standing().level == "re-evaluated"
    assert [p.rule for p in validate([results() / "records"]).problems if "signers" in p.path] == ["append-only"]


def test_claims_are_shown_and_not_ranked(board):
    (built,) = boards(find_records([results() / "records"])[0])
    assert (built.entries[0].rank, built.entries[0].level) == (None, "claimed")


@needs_keygen
def test_odd_lists_of_keys_are_refused(tmp_path, pairs):
    path, key = tmp_path / "signers", (pairs / "jane.pub").read_text().strip()
    for line, says in (
        (f"* {key}", "one person's key"),
        (f"a@x cert-authority {key}", "one person's key"),
        ("a@x ssh-ed25519", "is no `name"),
        (f"a@x one two {key}", "is no `name"),
        (f"a@x {key}\nb@x {key}", "lists the key of line 1 again"),
    ):
        path.write_text(f"{line}\n")
        with pytest.raises(RecordError, match=says):
            list(keys(path))


@needs_keygen
def test_odd_files_among_statements_are_a_problem(board):
    stated(board)
    for name in ("x.json.sig", "x.npz", "notes.txt"):
        (results() / "verifications" / name).write_text("")
    assert len(roles()) == 3


def test_without_ssh_keygen_a_signed_statement_is_a_claim_and_one_line_says_so(board, monkeypatch):
    path = stated(board)
    signature_of(path).write_text("a signature")
    monkeypatch.setenv("PATH", "")
    assert signing.MISSING in standing().said[0].why and standing().level == "claimed"
    with pytest.raises(UsageError, match="ssh-keygen is not installed"):
        sign(path, path)


@needs_keygen
def test_signing_and_showing_from_the_command_line(board, pairs, capsys):
    def call(*words):
        code = main([str(word) for word in words])
        caught = capsys.readouterr()
        return code, caught.out + caught.err

    path, record = stated(board), results() / "records" / board.run.record_path()
    code, said = call("record", "show", record)
    assert code == 0 and "verification: claimed" in said and "re-evaluated by Jane" in said and "a claim: no li" in said
    assert "with a key that signers does not list" in call("record", "sign", path, "--key", pairs / "stranger")[1]
    code, said = call("record", "sign", path, "--key", pairs / "jane")
    assert code == 0 and f"as {JANE}" in said
    assert f"signed by {JANE}" in call("record", "show", record)[1]
    for words, says in (
        (("record", "sign", record, "--key", pairs / "jane"), "is no statement about a record"),
        (("record", "sign", path, "--key", "nowhere"), "was not signed"),
    ):
        code, said = call(*words)
        assert code == 2 and says in said and said.count("\n") <= 2, said
    retract(board.id, "wrong split", results(), {board.id: board.run.record_path()})
    call("record", "sign", results() / "retractions" / f"{board.id}.json", "--key", pairs / "max")
    assert "asks to retract it: wrong split [signed by" in call("record", "show", record)[1]
