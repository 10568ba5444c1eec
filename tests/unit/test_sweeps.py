"""Sweeps on a real disk: what lies there tells the state, whatever happened; shared work is done once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from filelock import FileLock

from ltrobust_bench.errors import RecordError, UsageError
from ltrobust_bench.executors import local
from ltrobust_bench.executors.base import AGAIN, Executor, Job, Options, Outcome, Place, launch
from ltrobust_bench.executors.local import Local, LocalOptions
from ltrobust_bench.plan.request import Request
from ltrobust_bench.progress import Silent
from ltrobust_bench.records.io import read_record, record_files, write_record
from ltrobust_bench.report import aggregate
from ltrobust_bench.sweeps.bounds import Bound, network_sha256, read_bound, write_bound
from ltrobust_bench.sweeps.notes import HOST, SILENCE, Heartbeat, Note, note_path, read_note
from ltrobust_bench.sweeps.plan import read_plan
from ltrobust_bench.sweeps.scheduler import Rules
from ltrobust_bench.sweeps.states import OnDisk, states_in, states_of
from ltrobust_bench.training.folder import locked
from ltrobust_bench.verbs import work as worker
from ltrobust_bench.verbs.sweeping import Sweep, executor_with, sweep

SMALL = {"protocol": "smoke", "epochs": 1, "limit_train": 128, "limit_test": 20}
AT, CRT = Request("at", "digits-lt", **SMALL), Request("crt", "digits-lt", **SMALL)


class Here(Executor):
    """Does a job in this process as soon as it is given."""

    help = ""

    def __init__(self, options=None):
        self.ended, self.begun, self.done = [], [], []

    def free(self):
        return 1

    def start(self, job):
        outcome = Outcome(job, worker.work(job, Silent()))
        name = job.id.split("-")[0] + "." + job.kind
        self.begun.append(name)
        self.done += [name] * (outcome.end == "done")
        self.ended.append(outcome)

    def finished(self):
        ended, self.ended = self.ended, []
        return ended

    def stop(self): ...

    def close(self): ...


@pytest.fixture
def place(tmp_path):
    return Place(runs_dir=tmp_path / "runs", results_dir=tmp_path / "results", device="cpu", threads=1)


def do(place, *requests, **rules):
    """The jobs that a sweep of these requests begins, and its report."""
    executor = Here()
    report = Sweep.of(requests, place).run(executor, Rules(period=0.01, **rules), Silent())
    return executor.begun, report


def states(place, *requests):
    """State by ``method.kind``."""
    seen = states_of(Sweep.of(requests, place).pieces, OnDisk())
    return {one.id.split("-")[0] + "." + one.id.rpartition(".")[2]: one for one in seen}


def words(found):
    return {name: one.state for name, one in found.items()}


def test_bases_are_trained_once_before_what_builds_on_them_and_nothing_twice(place):
    before = {"at.train": "ready", "at.evaluate": "waiting", "crt.train": "waiting", "crt.evaluate": "waiting"}
    assert words(states(place, CRT, AT)) == before
    begun, report = do(place, CRT, AT)
    assert begun == ["at.train", "crt.train", "crt.evaluate", "at.evaluate"] and not report.left
    assert set(words(states(place, CRT, AT)).values()) == {"done"}
    assert {one.state for one in states_in(place.runs_dir)} == {"done"} and len(states_in(place.runs_dir)) == 4
    assert not list(place.runs_dir.glob("*/train.json")) and not list(place.runs_dir.glob("*/evaluate.json"))
    assert do(place, CRT, AT)[0] == []

    # A base that is gone is trained again only where something that needs it is left.
    base, built = (next(place.runs_dir.glob(f"{name}-*")) for name in ("at", "crt"))
    (base / "model.safetensors").unlink()
    assert do(place, CRT)[0] == []
    (built / "record.json").unlink()
    assert do(place, CRT)[0] == ["crt.evaluate"]


def test_only_some_of_a_plan_with_what_they_build_on(place):
    assert {piece.plan.run.method for piece in Sweep.of([AT, CRT], place, ["cr*"]).left.values()} == {"at", "crt"}
    assert [name.rpartition(".")[2] for name in Sweep.of([AT, CRT], place, ["at"]).left] == ["train", "evaluate"]
    with pytest.raises(UsageError, match="--only zz matches none"):
        Sweep.of([AT, CRT], place, ["at", "zz"])


@pytest.mark.slow
def test_a_race_skips_a_run_below_the_cut_and_keeps_one_near_it(place, monkeypatch):
    """On a board with one entry, adversarially trained. An undefended network is far below it; with equal classes
    balanced softmax is the same training as the entry's, and of ten images the interval is wide enough for PMA to be
    stronger than a smoke suite."""
    monkeypatch.setattr(aggregate, "_competing", lambda board: board.entries)  # a smoke board ranks nobody
    terms = SMALL | {"imbalance_ratio": 1, "limit_train": 600, "limit_test": 10, "epochs": 12}
    entry, erm, kept = (Request(method, "digits-lt", **terms) for method in ("at", "erm", "at-bsl"))
    do(place.model_copy(update={"results_dir": None}), entry)
    (first,) = (read_record(path / "record.json") for path in place.runs_dir.glob("at-digits-*"))
    write_record(first, place.results_dir / "records" / first.run.record_path())
    racing = place.model_copy(update={"race": 1})
    begun, report = do(racing, erm, kept)
    assert len(begun) == 4 and not report.left and not report.failed
    skipped, attacked = (next(place.runs_dir.glob(f"{method}-digits-*")) for method in ("erm", "at-bsl"))
    bound = read_bound(skipped)
    assert not (skipped / "record.json").exists() and bound.weights_sha256 == network_sha256(skipped)
    assert bound.accuracy <= bound.high < bound.cut == pytest.approx(float(first.metrics("union").balanced))
    assert (attacked / "record.json").exists() and read_bound(attacked) is None
    assert not Sweep.of([erm, kept], racing).left  # in the same race nothing is left; in another, or none, the run is
    for other in (place, place.model_copy(update={"race": 2})):
        assert [name.partition("-")[0] for name in Sweep.of([erm, kept], other).left] == ["erm"]


@pytest.mark.board
def test_what_is_filed_is_not_done_again_and_what_is_not_is_filed(place, root):
    (request, *_) = read_plan(root / "results/plan.toml").requests()
    filed = place.model_copy(update={"results_dir": root / "results"})
    assert not Sweep.of([request], filed).left
    piece = list(Sweep.of([request], place).left.values())[-1]
    original = root / "results/records" / piece.job.record
    piece.job.folder.mkdir(parents=True)
    (piece.job.folder / "record.json").write_bytes(original.read_bytes())  # killed before it was filed
    begun, report = do(place, request)
    assert begun == [] and not report.failed
    (record,) = map(read_record, record_files(place.results_dir / "records"))
    assert record == read_record(original)


def test_what_counts_as_done_by_records_of_other_code_is_told(place):
    """A package of another day, a base of another day, and a record of before code was recorded."""
    do(place, AT, CRT)
    assert Sweep.of([AT, CRT], place).by_other_code() == []
    (path,) = (folder / "record.json" for folder in place.runs_dir.glob("crt-*"))
    record = read_record(path)
    assert [code.work for code in record.environment.code] == ["base", "training", "evaluation"]
    old = [code.model_copy(update={"package_sha256": "0" * 64}) for code in record.environment.code]
    for number, code in enumerate((old[0], old[1], old[2], None)):
        codes = [code if i == number else own for i, own in enumerate(record.environment.code)] if code else []
        changed = record.environment.model_copy(update={"code": codes})
        write_record(record.model_copy(update={"environment": changed}), path)
        again = Sweep.of([AT, CRT], place)
        assert again.by_other_code() == [path.parent.name] and not again.left


def test_a_damaged_record_is_not_taken_for_a_result(place):
    """In a run folder or filed; what is deleted is done again."""
    do(place, AT)
    (own,) = place.runs_dir.glob("at-*/record.json")
    whole = Request("at", "digits-lt")
    filed = place.results_dir / "records" / list(Sweep.of([whole], place).pieces.values())[-1].job.record
    filed.parent.mkdir(parents=True)
    for path, request in ((own, AT), (filed, whole)):
        path.write_text("{")
        folders = {"runs_dir": place.runs_dir, "results_dir": place.results_dir}
        with pytest.raises(RecordError, match=r"json is no record: .*\. Delete it, and its run is done again\.$"):
            sweep([request], device="cpu", workers=1, threads_per_worker=1, **folders)
    own.unlink()
    begun, report = do(place, AT)
    assert begun == ["at.evaluate"] and not report.failed


def test_status_tells_what_a_race_left_of_a_run(place):
    (piece, evaluation) = Sweep.of([AT], place).pieces.values()
    given_up = Bound(accuracy=0.1, high=0.2, cut=0.3, rank=3, attack="pma", weights_sha256="0" * 64)
    piece.job.folder.mkdir(parents=True)
    write_bound(given_up, piece.job.folder)
    (piece.job.folder / "model.safetensors").touch()
    seen = states(place, AT)["at.evaluate"]
    assert (seen.state, seen.text) == ("ready", given_up.text)
    assert [one.text for one in states_in(place.runs_dir) if one.id == evaluation.job.id] == [given_up.text]


def test_states_are_read_off_the_disk(place):
    (training, evaluation) = (piece.job for piece in Sweep.of([AT], place).pieces.values())
    training.folder.mkdir(parents=True)

    def leave(**fields):
        note = {"state": "running", "host": HOST, "pid": os.getpid(), "time": time.time(), "sessions": 1} | fields
        note_path(training.folder, "train").write_text(Note.model_validate(note).model_dump_json())
        seen = states(place, AT)
        assert seen["at.evaluate"].state == "waiting" and seen["at.evaluate"].text == "for its training"
        return seen["at.train"].state, seen["at.train"].text

    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    far = {"what": "train at", "done": 3, "total": 4}
    assert leave(**far, sessions=2) == ("running", f"train at 3/4 (75%) on {HOST}, session 2")
    assert leave(pid=gone.pid)[0] == "lost"
    assert leave(time=time.time() - SILENCE - 1)[0] == "lost"  # its number may be another process's by now
    assert leave(host="elsewhere")[0] == "running"
    assert leave(host="elsewhere", time=time.time() - SILENCE - 1)[0] == "lost"
    assert leave(state="stopped", **far)[0] == "stopped"
    assert leave(state="failed", reason="it broke") == ("failed", f"it broke  log: {training.log}")
    note_path(training.folder, "train").write_text("{")  # a note that nobody can read says nothing
    assert words(states(place, AT))["at.train"] == "ready"
    with FileLock(training.folder / ".lock"):
        seen = states(place, AT)["at.train"]
        assert (seen.state, seen.text) == ("running", "by another command")


def test_a_job_that_fails_says_why_until_it_succeeds(place):
    (training, *_) = (piece.job for piece in Sweep.of([AT], place).pieces.values())
    training.folder.mkdir(parents=True)
    (training.folder / "model.safetensors").write_bytes(b"no network")
    begun, report = do(place, AT)
    assert begun == ["at.evaluate"] and list(report.failed) == [f"{training.run}.evaluate"]
    seen = states(place, AT)["at.evaluate"]
    assert seen.state == "failed" and "no readable safetensors file" in seen.text and seen.text.count("\n") == 0
    (training.folder / "model.safetensors").unlink()
    assert do(place, AT)[0] == ["at.train", "at.evaluate"]
    assert set(words(states(place, AT)).values()) == {"done"}


def test_a_fault_that_nobody_foresaw_is_one_line_too(place, monkeypatch, capfd):
    def broken(*_, **__):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(worker, "train_plan", broken)
    _, report = do(place, AT, retry=1)
    assert report.failures == 2 and states(place, AT)["at.train"].note.reason == "ZeroDivisionError: division"
    assert "Traceback" in capfd.readouterr().err  # for the log


def test_a_worker_leaves_a_folder_alone_in_which_another_works(place, monkeypatch):
    monkeypatch.setattr(worker, "PATIENCE", 0.6)
    (training, *_) = (piece.job for piece in Sweep.of([AT], place).pieces.values())
    training.folder.mkdir(parents=True)
    with FileLock(training.folder / ".lock"):
        assert worker.work(training, Silent()) == AGAIN
    assert read_note(training.folder, "train") is None
    assert worker.work(training, Silent()) == 0


def test_a_worker_is_patient_with_who_only_reads(place):
    (training, *_) = (piece.job for piece in Sweep.of([AT], place).pieces.values())
    training.folder.mkdir(parents=True)
    lock = FileLock(training.folder / ".lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.7, lock.release).start()
    assert worker.work(training, Silent()) == 0


def test_a_stopped_job_goes_on_in_its_next_session(place, monkeypatch):
    (training, *_) = (piece.job for piece in Sweep.of([AT], place).pieces.values())

    def stopped(*_, **__):
        raise KeyboardInterrupt("SIGTERM")

    with monkeypatch.context() as patch:
        patch.setattr(worker, "train_plan", stopped)
        assert worker.work(training, Silent()) == AGAIN
    assert words(states(place, AT))["at.train"] == "stopped"
    assert Heartbeat(training, Silent()).sessions == 2
    assert do(place, AT)[0] == ["at.train", "at.evaluate"]


def test_two_sweeps_of_overlapping_plans_share_the_work(place, monkeypatch):
    """Work that takes a moment and must not be done twice, in two threads; with trainings in processes below."""
    monkeypatch.setattr("ltrobust_bench.sweeps.scheduler.ELSEWHERE", 0.05)
    monkeypatch.setattr(worker, "PATIENCE", 0.1)

    def once(job, _):
        with locked(job.folder), (job.folder / NAMES[job.kind]).open("x"):  # raises if it is there
            time.sleep(0.03)

    monkeypatch.setattr(worker, "_do", once)
    requests = [request.replace(seed=seed) for seed in range(3) for request in (AT, CRT)]
    sweeps = [Sweep.of(asked, place) for asked in (requests, requests[::-1])]  # both before anything is done
    reports = []
    threads = [
        threading.Thread(target=lambda one=one: reports.append(one.run(Here(), Rules(period=0.01), Silent())))
        for one in sweeps
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [(len(report.done), report.left, report.failed) for report in reports] == [(12, [], {})] * 2


NAMES = {"train": "model.safetensors", "evaluate": "record.json"}


def test_a_local_worker_that_is_killed_is_lost_and_one_that_is_asked_to_stop_is_queued_again(place, monkeypatch):
    waits = f"trap 'exit {AGAIN}' TERM; echo ready; while :; do sleep 0.02; done"
    monkeypatch.setattr(Job, "command", lambda _: ["sh", "-c", waits])
    executor = Local(LocalOptions(workers=3, gpus_per_job=0.0))

    def begin(name):
        executor.start(fake_job(place, name))
        while not fake_job(place, name).log.read_text():
            time.sleep(0.02)

    def outcomes(count):
        found = []
        while len(found) < count:
            found += executor.finished()
        return {outcome.job.run: outcome.end for outcome in found}

    begin("killed")
    os.kill(executor.running[0][1].pid, signal.SIGKILL)
    assert outcomes(1) == {"killed": "lost"}
    begin("asked")
    executor.stop()
    assert outcomes(1) == {"asked": "again"}
    begin("left")
    process = executor.running[0][1]
    executor.close()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_two_sweeps_in_processes_of_their_own_share_the_work(place, root):
    here = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests/unit'}"}
    asked = [sys.executable, "-c", OTHER, str(place.runs_dir), str(place.results_dir)]
    sweeps = [
        subprocess.Popen([*asked, *methods], stdout=subprocess.PIPE, text=True, env=here)
        for methods in (["at", "crt"], ["crt", "at"])
    ]
    done = [process.communicate(timeout=300)[0].split() for process in sweeps]
    assert [process.returncode for process in sweeps] == [0, 0]
    assert sorted(sum(done, [])) == ["at.evaluate", "at.train", "crt.evaluate", "crt.train"]
    assert set(words(states(place, AT, CRT)).values()) == {"done"}


OTHER = """
import sys
from pathlib import Path
from ltrobust_bench.sweeps import scheduler
import test_sweeps as own
scheduler.ELSEWHERE = 0.2
place = own.Place(runs_dir=Path(sys.argv[1]), results_dir=Path(sys.argv[2]), device="cpu", threads=1)
executor = own.Here()
requests = [{"at": own.AT, "crt": own.CRT}[name] for name in sys.argv[3:]]
report = own.Sweep.of(requests, place).run(executor, own.Rules(period=0.01), own.Silent())
print(*executor.done)
sys.exit(bool(report.left or report.failed))
"""


@pytest.mark.slow
def test_a_worker_that_is_killed_is_begun_again_and_the_result_is_that_of_a_quiet_run(place, tmp_path):
    """Real processes: one is killed in the middle of its training, and status tells."""
    longer = AT.replace(epochs=40)
    lines, seen = [], []

    class Killing(Local):
        def finished(self):
            note = read_note(self.running[0][0].folder, "train") if self.running and not lines else None
            if note is not None and note.what.startswith("train") and list(place.runs_dir.glob("*/checkpoint-*")):
                process = self.running[0][1]
                process.kill()
                process.wait()
                lines.append(process.returncode)
                seen.append(states(place, longer)["at.train"].state)
            return super().finished()

    executor = Killing(LocalOptions(workers=1, gpus_per_job=0.0))
    report = Sweep.of([longer], place).run(executor, Rules(period=0.05), Silent())
    assert lines == [-signal.SIGKILL] and seen == ["lost"] and report.losses == 1 and not report.left
    assert set(words(states(place, longer)).values()) == {"done"}
    (log,) = place.runs_dir.glob("*/train.log")
    assert "going on after epoch" in log.read_text()
    quiet = place.model_copy(update={"runs_dir": tmp_path / "quiet"})
    do(quiet, longer)
    killed, undisturbed = (next(where.runs_dir.glob("*/record.json")) for where in (place, quiet))
    assert read_record(killed).result == read_record(undisturbed).result


def fake_job(place, name):
    return Job(kind="train", request=AT, run=name, record="", place=place)


@pytest.mark.parametrize(
    ("share", "taken"),
    [
        (1.0, ["0", "1"]),
        (0.5, ["0", "1", "0", "1"]),
        (0.4, ["0", "1", "0", "1"]),
        (2.0, ["0,1"]),
        (0.0, [None] * 8),
        (None, ["0", "1"]),
    ],
)
def test_cuda_devices_are_handed_out(place, monkeypatch, share, taken):
    given = []

    def started(job, variables, stdin):
        given.append(variables.get("CUDA_VISIBLE_DEVICES"))
        return subprocess.Popen(["true"])

    monkeypatch.setattr(local, "launch", started)
    monkeypatch.setattr(local, "cuda_devices", lambda: ["0", "1"])
    executor = Local(LocalOptions(workers=8, gpus_per_job=share))
    for _ in range(2):  # what ended gives its share back
        given.clear()
        jobs = iter(range(100))
        while executor.free():
            executor.start(fake_job(place, str(next(jobs))))
        assert given == taken
        while executor.running:
            executor.finished()


@pytest.mark.parametrize(
    ("name", "given", "device", "line"),
    [
        ("lcoal", {}, "auto", "unknown executor 'lcoal': did you mean 'local'"),
        ("local", {"address": "auto"}, "auto", "unknown option of executor local 'address'"),
        ("local", {"workers": 0}, "auto", "executor local: workers: .*greater than or equal to 1"),
        ("local", {}, "cuda:1", "CUDA_VISIBLE_DEVICES=1"),
    ],
)
def test_impossible_executors_are_refused(name, given, device, line):
    with pytest.raises(UsageError, match=line):
        executor_with(name, given, device)


def test_impossible_shares_are_refused(monkeypatch):
    monkeypatch.setattr(local, "cuda_devices", lambda: ["0", "1"])
    for share, line in ((1.5, "whole number"), (3.0, "has 2 CUDA devices")):
        with pytest.raises(UsageError, match=line):
            Local(LocalOptions(gpus_per_job=share))


def test_workers_get_their_threads_and_logs(place, monkeypatch):
    monkeypatch.setattr(Job, "command", lambda _: ["sh", "-c", "echo $OMP_NUM_THREADS $MKL_NUM_THREADS; echo no >&2"])
    for _ in range(2):
        launch(fake_job(place.model_copy(update={"threads": 3}), "x")).wait()
    assert fake_job(place, "x").log.read_text() == "3 3\nno\n" * 2
    cores = len(os.sched_getaffinity(0))
    assert LocalOptions(workers=cores).threads == 1 and LocalOptions(workers=1).threads == cores
    assert Options().threads is None and LocalOptions(threads_per_worker=5).threads == 5


def test_python_users_have_it_as_a_verb(place, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text('[[runs]]\nmethod = "at"\ndataset = "digits-lt"\nprotocol = "smoke"\nepochs = 1\nlimit_train = 64')
    report = sweep(plan, max_hours=1e-9, runs_dir=place.runs_dir, results_dir=None, device="cpu")
    assert not report.done and not report.failed and len(report.left) == 2
