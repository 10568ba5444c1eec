"""``ltbench record``: validate, submit, retract, schema."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command_line import FAST, call, refused

from ltrobust_bench.records.io import read_record, write_record
from ltrobust_bench.records.schema import Record, Result

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "results" / "records"
COUNT = len(list(RECORDS.rglob("*.json")))
LEFT = COUNT - len(list((RECORDS / "digits-v0/digits-lt-ir20/reat").glob("*.json")))
REAL = ROOT / "tests" / "historic_records" / "v1-first-small-s0-db25c435.json"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the committed records and a finished run that is not filed yet."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RECORDS, "results/records")
    run = tmp_path / "runs" / "reat"
    run.mkdir(parents=True)
    (run / "plan.json").write_text("{}")
    shutil.copy(REAL, run / "record.json")
    for path in filed(read_record(REAL)).parent.glob("small-*"):  # the other seeds come after this one
        path.unlink()
    return tmp_path


def some_trades():
    """A record of the first board: the newer ones also state the code of each session."""
    return next(Path("results/records/digits-v0").rglob("trades/*.json"))


def filed(record):
    return Path("results/records") / record.run.record_path()


def changed(path, **sections):
    """Write the record again with other fields."""
    raw = read_record(path).model_dump(mode="json")
    for name, fields in sections.items():
        raw[name] |= fields
    write_record(Record.model_validate(raw), path)


def test_validate_finds_nothing_wrong_with_real_records(capsys, here):
    code, out, _ = call(capsys, "record", "validate")
    assert (code, out) == (0, f"{LEFT} records, 0 problems; not compared with git\n")
    code, out, _ = call(capsys, "record", "validate", RECORDS)
    assert code == 0 and f"{COUNT} records, 0 problems; compared with HEAD (" in out
    assert call(capsys, "record", "validate", "runs")[1].startswith("1 record, 0 problems")


def test_validate_names_file_field_value_and_what_is_allowed(capsys, here):
    path = some_trades()
    changed(path, environment={"git_dirty": True, "created": "2999-01-01T00:00:00Z"})
    code, out, _ = call(capsys, "record", "validate")
    first, second, last = out.splitlines()
    assert code == 1 and last == f"{LEFT} records, 2 problems; not compared with git"
    assert first.startswith(f"{path}: environment.created: must lie between 2024-01-01 and now")
    assert first.endswith("(got '2999-01-01T00:00:00Z') [environment]")
    assert second.startswith(f"{path}: environment.git_dirty: must be false") and second.endswith("[provenance]")
    code, out, _ = call(capsys, "record", "validate", path, "--json")
    report = json.loads(out)
    assert code == 1 and (report["records"], report["retracted"], report["against"]) == (1, 0, "")
    assert [p["field"] for p in report["problems"]] == ["environment.created", "environment.git_dirty"]
    assert set(report["problems"][0]) == {"path", "rule", "field", "allowed", "seen"}


def test_validate_and_the_board_go_on_after_a_damaged_record(capsys, here):
    path = some_trades()
    path.write_text(path.read_text()[:300])
    code, out, _ = call(capsys, "record", "validate")
    assert code == 1 and out.startswith(f"{path}: file: must be a JSON file") and f"{LEFT} records, 1 problem;" in out
    code, out, _ = call(capsys, "report", "leaderboard", "--no-figures")
    assert code == 1 and path.name in out.replace("\n", "")
    assert "at-bsl" in Path("results/leaderboard.md").read_text()


def test_wrong_requests(capsys, here):
    assert "no file or folder nowhere" in refused(capsys, "record", "validate", "nowhere")
    (here / "empty").mkdir()
    assert "no records in empty" in refused(capsys, "record", "validate", "empty")
    assert "no git checkout" in refused(capsys, "record", "validate", "--against", "main")
    assert "no such commit" in refused(capsys, "record", "validate", RECORDS, "--against", "no/such/branch")
    assert "--reason" in refused(capsys, "record", "retract", "0" * 12)
    assert "unknown record" in refused(capsys, "record", "retract", "0" * 12, "--reason", "x")
    many = refused(capsys, "record", "retract", "../../x", "--reason", "x")
    assert f", and {LEFT - 50} more. The column" in many and len(many) < 1000
    assert "RUN" in refused(capsys, "record", "submit")
    assert "no record" in refused(capsys, "record", "submit", "runs")


def test_the_results_folder_can_be_named(capsys, here, monkeypatch):
    monkeypatch.setenv("LTBENCH_RESULTS", str(ROOT / "results"))
    assert call(capsys, "record", "validate")[1].startswith(f"{COUNT} records, 0 problems")


def test_submit_files_the_record_and_prints_the_commands_that_propose_it(capsys, here):
    def git(*arguments):
        subprocess.run(["git", *arguments], check=True, capture_output=True)

    git("init", "--quiet")
    git("config", "user.name", "t")
    git("config", "user.email", "t@example.org")
    git("commit", "--quiet", "--allow-empty", "--message", "start")
    code, out, _ = call(capsys, "record", "submit", "runs/reat")
    place = filed(read_record(REAL))
    assert code == 0 and f"filed: {place}" in out
    assert read_record(place) == read_record(REAL)
    commands = [shlex.split(line) for line in out.splitlines() if line.startswith("  git ")]
    assert [c[1] for c in commands] == ["switch", "add", "commit", "push"]
    for command in commands[:-1]:
        git(*command[1:])
    assert call(capsys, "record", "validate", place)[0] == 0
    before = place.read_bytes()
    code, out, _ = call(capsys, "record", "submit", "runs/reat/record.json")
    assert code == 0 and f"already filed: {place}" in out and place.read_bytes() == before


def test_what_submit_prints_begins_at_the_base_and_tells_what_it_lacks(capsys, here, tmp_path, monkeypatch):
    """A branch of a branch would bring the method along, and records and code in one pull request are refused."""

    def git(*arguments, at="."):
        done = subprocess.run(["git", "-C", at, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "t")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "t@example.org")
    base = tmp_path / "base"
    git("init", "--quiet", "--initial-branch=trunk", base, at=tmp_path)
    git("commit", "--quiet", "--allow-empty", "--message", "start", at=base)
    git("init", "--quiet")
    for remote in ("origin", "upstream"):
        git("remote", "add", remote, base)
    git("fetch", "--quiet", "upstream")
    git("remote", "set-head", "upstream", "--auto")
    git("switch", "--quiet", "--create", "my-method", "upstream/trunk")
    Path("method.py").write_text("")
    git("add", "method.py")
    git("commit", "--quiet", "--message", "a method")
    out = call(capsys, "record", "submit", "runs/reat")[1]
    commit = read_record(REAL).environment.git_commit
    assert f"note: it will be refused: upstream/trunk does not have commit {commit[:7]}, from which it was comp" in out
    for line in out.splitlines():
        if line.startswith("  git "):
            git(*shlex.split(line)[1:])
    assert git("diff", "--name-only", "upstream/trunk...HEAD") == str(filed(read_record(REAL)))
    assert git("branch", "--list", "record-*", at=base)


def test_a_run_and_its_record_are_one_submission(capsys, here):
    code, out, _ = call(capsys, "record", "submit", "runs/reat", "runs/reat/record.json")
    assert code == 0 and out.count("filed: ") == 1


def test_submit_never_overwrites(capsys, here):
    call(capsys, "record", "submit", "runs/reat")
    before = filed(read_record(REAL)).read_bytes()
    bits = read_record(REAL).result.bits
    bits |= {"fgsm": bits["clean"]}
    digest = Result.digest_of(bits, read_record(REAL).result.broken_by)
    changed(Path("runs/reat/record.json"), result={"bits": bits, "digest": digest})
    assert "append-only" in refused(capsys, "record", "submit", "runs/reat")
    assert filed(read_record(REAL)).read_bytes() == before


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"run": {"limit_test": 100}, "status": {"reduced": True}}, "reduced run"),
        ({"run": {"protocol": "smoke"}}, "smoke test"),
        ({"environment": {"git_commit": None, "git_dirty": None}}, "git_commit must be a full commit"),
    ],
)
def test_submit_refuses_what_joins_no_board(capsys, here, sections, says):
    changed(Path("runs/reat/record.json"), **sections)
    assert says in refused(capsys, "record", "submit", "runs/reat")
    assert not filed(read_record(REAL)).exists()


def test_submit_writes_nothing_if_a_rule_is_broken(capsys, here):
    """Alone (an impossible day), or beside what is filed (the weights of another seed's run)."""
    path = Path("runs/reat/record.json")
    changed(path, environment={"created": "2999-01-01T00:00:00Z"})
    code, out, _ = call(capsys, "record", "submit", "runs/reat")
    assert code == 1 and "environment.created" in out and "1 problem; nothing was written" in out
    shutil.copy(REAL, path)
    other = read_record(next(Path("results/records/digits-v0").rglob("trades/small-s1-*.json")))
    changed(path, result={"weights_sha256": other.result.weights_sha256})
    code, out, _ = call(capsys, "record", "submit", path)
    assert code == 1 and "[weights-of-one-seed]" in out
    assert not filed(read_record(REAL)).exists()


def test_a_smoke_run_is_refused_for_what_it_is(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--limit-train", 50, "--limit-test", 20, "--epochs", 1]
    assert call(capsys, "run", "--method", "at", "--dataset", "digits-lt", *FAST, *small)[0] == 0
    (folder,) = tmp_path.glob("runs/*")
    assert call(capsys, "record", "validate", "runs")[0] == 0, "a real reduced run is sound where it lies"
    assert "not filed, no board accepts this record: reduced runs" in refused(capsys, "record", "submit", folder)


def test_retract_leaves_the_record_and_takes_it_off_the_board(capsys, here):
    path = next(Path("results/records/digits-v0").rglob("trades/*.json"))
    record, before = read_record(path), path.read_bytes()
    code, out, _ = call(capsys, "record", "retract", record.id, "--reason", "trained on the wrong split")
    place = Path(f"results/retractions/{record.id}.json")
    assert code == 0 and str(place) in out and path.read_bytes() == before
    stated = json.loads(place.read_text())
    assert (stated["record"], stated["path"]) == (record.id, record.run.record_path())
    assert f"{LEFT} records, 1 of them retracted, 0 problems" in call(capsys, "record", "validate")[1]
    code, out, _ = call(capsys, "report", "leaderboard", "--no-figures")
    assert code == 0 and f"record {record.id}" in out and "trained on the wrong split" in out
    assert record.id not in Path("results/leaderboard.csv").read_text()
    shutil.copy(path, "runs/reat/record.json")
    call(capsys, "report", "leaderboard", "--no-figures", "--records", "results/records", "--records", "runs")
    assert record.id not in Path("results/leaderboard.csv").read_text(), "nor from the run's own folder"
    assert "retracted already" in refused(capsys, "record", "retract", record.id, "--reason", "again")


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "\x1b[2J", "x" * 501])
def test_a_reason_is_one_line_of_text(capsys, here, reason):
    record = read_record(next(Path("results/records/digits-v0").rglob("trades/*.json")))
    assert "reason" in refused(capsys, "record", "retract", record.id, "--reason", reason)
    assert not Path("results/retractions").exists()


def test_schema_is_printed(capsys):
    code, out, _ = call(capsys, "record", "schema")
    assert code == 0 and set(json.loads(out)["required"]) == {
        "schema_version",
        "run",
        "result",
        "cost",
        "environment",
        "status",
    }


def test_export_for_robustbench(capsys, here, tmp_path):
    code, out, err = call(capsys, "record", "export", "--robustbench", "runs/reat")
    info = json.loads(out)
    assert code == 0 and info["autoattack_acc"] and info["venue"].endswith("2023")
    assert "no data set digits-lt" in err and "8/255" in err
    code, out, _ = call(capsys, "record", "export", "--robustbench", REAL, "--output", "info.json")
    assert code == 0 and json.loads(Path("info.json").read_text()) == info
    assert "no record" in refused(capsys, "record", "export", "--robustbench", "nothing.json")
    assert "--robustbench" in refused(capsys, "record", "export", REAL)


@pytest.mark.usefixtures("judge_here")
def test_verify_and_lower(capsys, tmp_path, monkeypatch):
    """A real run: attacked again, trained again, and lowered by nothing."""
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "run", "--method", "at", "--dataset", "digits-lt", *FAST)[0] == 0
    (run,) = tmp_path.glob("runs/*")
    said = ["record", "verify", run, "--by", "Jane Doe", "--device", "cpu"]
    code, out, _ = call(capsys, *said, "--weights", run, "--images", 50)
    assert code == 0 and "50 images looked at" in out and "re-evaluated; wrote" in out
    code, out, _ = call(capsys, *said, "--retrain")
    assert code == 0 and "retrained; wrote" in out
    assert len(list(tmp_path.glob("results/verifications/*.json"))) == 2
    assert "either --weights" in refused(capsys, *said)
    assert "either --weights" in refused(capsys, *said, "--weights", run, "--retrain")
    assert "--by" in refused(capsys, "record", "verify", run, "--retrain")
    np.savez(tmp_path / "none.npz", index=np.arange(0), images=np.zeros((0, 1, 8, 8)))
    lower = ["record", "lower", run, "--weights", run, "--by", "Jane Doe", "--device", "cpu", "--examples"]
    assert "one whole number for each" in refused(capsys, *lower, tmp_path / "none.npz")
    assert "no examples at" in refused(capsys, *lower, tmp_path / "absent.npz")
    from ltrobust_bench import verbs

    loaded = verbs.load_model(run, device="cpu")
    task = verbs.task_of(loaded.run)
    images = (task.source.test_images[task.split.test] / np.float32(255)).astype(np.float32)
    np.savez(tmp_path / "same.npz", index=task.split.test, images=images)
    code, out, _ = call(capsys, *lower, tmp_path / "same.npz")
    assert code == 0 and "nothing was written" in out
