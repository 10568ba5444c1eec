"""What goes wrong on real machines, done on purpose and counted: full disks, damaged files, signals, kills.

    python benchmarks/faults.py --kills 200 --damages 300 --signals 5

Every run is a child of this process that is stopped, starved of disk or killed, and begun again until it is finished;
its record must then be that of an undisturbed run: digests of weights and verdicts, counters, history. Prints how often
each fault was tried and how often it was met as it should be; leaves with code 1 if it was not, once.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import click
import torch
import torch._dynamo  # an optimiser imports it: once here, instead of once in each child

import ltrobust_bench as lt
from ltrobust_bench import interrupt
from ltrobust_bench.errors import LTBenchError
from ltrobust_bench.evaluation.state import kept_identity
from ltrobust_bench.plan.code import code_of
from ltrobust_bench.records.io import read_record
from ltrobust_bench.training import checkpoint as ckpt
from ltrobust_bench.verbs import run

COMMON = {"dataset": "digits-lt", "protocol": "smoke", "epochs": 6, "limit_train": 200, "limit_test": 50}
REQUESTS = [
    lt.Request("reat", plugins=("robustlt",), **COMMON),
    lt.Request("crt", plugins=("robustlt",), **COMMON),
    lt.Request("dafa", **COMMON),
    lt.Request("cfa", settings={"average_decay": 0.5, "threshold": 0}, **COMMON),
    lt.Request("resample", plugins=("awp",), **COMMON),
]
"""Methods with state, one of them of two stages, some with plug-ins."""

CPU = torch.device("cpu")
ROW = "{:44}{:>6}{:>6}  {}"


@dataclass
class Count:
    """How often a fault was tried, how often it was met as it should be, and what else there is to say."""

    fault: str
    tried: int = 0
    met: int = 0
    remark: str = ""

    def add(self, as_it_should_be: bool) -> None:
        """One more."""
        self.tried += 1
        self.met += as_it_should_be


@dataclass
class Child:
    """A process, and the pipe that it says things in."""

    number: int
    pipe: int

    def send(self, which: int) -> None:
        """Send it a signal."""
        os.kill(self.number, which)

    def over(self) -> bool:
        """Whether it has ended."""
        return os.waitid(os.P_PID, self.number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def end(self) -> tuple[int, str]:
        """Wait for it: its exit code, negative for the signal that killed it, and what it said."""
        with os.fdopen(self.pipe) as pipe:
            said = pipe.read()
        return os.waitstatus_to_exitcode(os.waitpid(self.number, 0)[1]), said


class Bench:
    """Runs of the requests in child processes, and what undisturbed ones come to."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.moments = folder, random.Random(seed)
        for request in REQUESTS:  # what is remembered once per process need not be asked by each child
            plan = request.to_plan()
            for section in (plan.run, *([plan.base.run] if plan.base else [])):
                code_of(section, "training")
                code_of(section, "evaluation")
        self.quiet: dict[lt.Request, tuple[object, ...]] = {}
        self.seconds: dict[lt.Request, float] = {}

    def start(self, request: lt.Request, place: Path, largest: int | None = None) -> Child:
        """A child that runs a request below ``place`` as the command line does, and listens to signals.

        Args:
            largest: it can write no file beyond so many bytes.
        """
        read, write = os.pipe()
        child = os.fork()
        if child:
            os.close(write)
            os.read(read, 1)
            return Child(child, read)
        with interrupt.listening(ends=True):
            os.write(write, b"!")
            if largest is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
            said, code = "", 99
            try:
                run(request, runs_dir=place / "runs", results_dir=None, device="cpu")
                code = 0
            except LTBenchError as error:
                said, code = f"{error}\n", error.exit_code
            except interrupt.Stopped as stopped:
                said, code = f"{stopped}\n", interrupt.REQUEUE
            finally:
                os.write(write, said.encode())
                os._exit(code)  # nothing of this process is to be tidied up by its copy

    def finished(self, request: lt.Request, place: Path) -> tuple[object, ...]:
        """Run a request to its end; what must not depend on how it came there."""
        code, said = self.start(request, place).end()
        assert code == 0, said
        (path,) = place.glob(f"runs/{'+'.join([request.method, *request.plugins])}-*/record.json")
        record, rest = read_record(path), sorted(p.name for p in path.parent.iterdir())
        history = (path.parent / "training.csv").read_bytes()
        return record.result, record.cost.training.forwards, record.cost.evaluation.forwards, history, rest

    def undisturbed(self, request: lt.Request) -> tuple[object, ...]:
        """The same of a run that was left alone, made once; its time is noted."""
        if request not in self.quiet:
            place, began = self.folder / f"quiet-{len(self.quiet)}", time.monotonic()
            self.quiet[request] = self.finished(request, place)
            self.seconds[request] = time.monotonic() - began
        return self.quiet[request]

    def place(self, name: str) -> Path:
        """A folder that is empty."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.folder / name


def full_disks(bench: Bench, sizes: int) -> Iterator[Count]:
    """Every run is cut off at each of some sizes, and ends as if it never was once there is room."""
    count = Count("disk full in the middle of a file")
    ends = Count("... and the same result with room again")
    for request in REQUESTS:
        expected, place = bench.undisturbed(request), bench.place("full")
        largest = max(p.stat().st_size for p in bench.folder.glob("quiet-*/runs/*/model.safetensors"))
        for size in sorted({0, 1, *(int(largest ** (i / sizes)) for i in range(sizes))}):
            code, said = bench.start(request, place, size).end()
            left = [*place.glob("runs/*/.*.tmp")]
            count.add(code == 1 and said.count("\n") == 1 and str(place) in said and not left)
        ends.add(bench.finished(request, place) == expected)
    yield from (count, ends)


def damages(bench: Bench, number: int) -> Iterator[Count]:
    """Bits changed and ends cut off, in checkpoints and in the state of an evaluation."""
    place, request = bench.place("damaged"), REQUESTS[0]
    bench.undisturbed(request)
    child = bench.start(request, place)
    while not list(place.glob("runs/*/checkpoint-0003/meta.json")):
        time.sleep(0.002)
    child.send(signal.SIGKILL)
    child.end()
    (run,) = place.glob("runs/*")
    newest = ckpt.newest(run)
    assert newest is not None
    shutil.copytree(newest, place / "kept")
    whole = ckpt.load_checkpoint(run, CPU)
    assert whole is not None
    count = Count("damaged checkpoint", remark="the one before it is loaded")
    for _ in range(number):
        shutil.rmtree(newest, ignore_errors=True)
        shutil.copytree(place / "kept", newest)
        path = bench.moments.choice(sorted(newest.iterdir()))
        path.write_bytes(damaged(bench.moments, path.read_bytes()))
        loaded = ckpt.load_checkpoint(run, CPU)
        # A letter of meta.json may change without a meaning; what is loaded then is what was written.
        same = (
            loaded is not None
            and loaded[0] == whole[0]
            and ckpt.weights_sha256(loaded[1]) == ckpt.weights_sha256(whole[1])
        )
        count.add(loaded is not None and (same or loaded[0] == whole[0] - 1))
    yield count
    yield damaged_states(bench, number)


def damaged_states(bench: Bench, number: int) -> Count:
    """The state of an evaluation, stopped in the middle."""
    place, request = bench.place("state"), REQUESTS[0]
    states: list[Path] = []
    while not states:
        child = bench.start(request, bench.place("state"))
        while not states and not child.over():
            states = list(place.glob("runs/*/evaluation.npz"))
        child.send(signal.SIGKILL)
        child.end()
        states = list(place.glob("runs/*/evaluation.npz"))
    (path,) = states
    content, count = path.read_bytes(), Count("damaged evaluation.npz", remark="begun again")
    for _ in range(number):
        path.write_bytes(damaged(bench.moments, content))
        count.add(kept_identity(path) == "")
    return count


def damaged(moments: random.Random, content: bytes) -> bytes:
    """Some bits changed, or the end cut off."""
    if moments.random() < 0.25:
        return content[: moments.randrange(len(content))]
    changed = bytearray(content)
    for place in moments.sample(range(len(content)), moments.choice([1, 1, 3, 50])):
        changed[place] ^= 1 << moments.randrange(8)
    return bytes(changed)


def signals(bench: Bench, number: int) -> Iterator[Count]:
    """Each signal at random moments of a run, which is begun again each time."""
    ends = Count("... and the same result when begun again")
    for name, request in zip(interrupt.SIGNALS, cycle(REQUESTS), strict=False):
        count = Count(f"{name}: exit code {interrupt.REQUEUE}, one line")
        expected, place = bench.undisturbed(request), bench.place("signal")
        while count.tried < number:
            child = bench.start(request, place)
            time.sleep(bench.moments.uniform(0, bench.seconds[request] / 3))
            child.send(getattr(signal, name))
            code, said = child.end()
            if code == 0:  # it was quicker
                place = bench.place("signal")
                continue
            count.add(code == interrupt.REQUEUE and said.count("\n") == 1 and f"Stopped by {name}" in said)
        ends.add(bench.finished(request, place) == expected)
        yield count
    yield ends


def kills(bench: Bench, number: int) -> Iterator[Count]:
    """SIGKILL at random moments of training and evaluation, shared among the methods; each run ends in the end."""
    count, runs = Count("SIGKILL at a random moment"), Count("... and the same result in the end")
    for turn, request in enumerate(REQUESTS, 1):
        expected, share = bench.undisturbed(request), number * turn // len(REQUESTS)
        while count.tried < share:
            place, done = bench.place("killed"), False
            while not done and count.tried < share:
                child = bench.start(request, place)
                time.sleep(bench.moments.uniform(0, bench.seconds[request] / 3))
                child.send(signal.SIGKILL)
                done = child.end()[0] == 0
                if not done:
                    count.add(True)
            runs.add(bench.finished(request, place) == expected)
    yield from (count, runs)


@click.command()
@click.option("--kills", "killed", default=200, show_default=True, help="SIGKILLs, over all methods.")
@click.option("--damages", "damaged_files", default=300, show_default=True, help="Damages, to each kind of file.")
@click.option("--signals", "signalled", default=5, show_default=True, help="Of each kind.")
@click.option("--sizes", default=12, show_default=True, help="Sizes at which the disk is full.")
@click.option("--seed", default=0, show_default=True)
def main(killed: int, damaged_files: int, signalled: int, sizes: int, seed: int) -> None:
    """Count the faults, and how they are met."""
    torch.set_num_threads(1)  # also: a process with one thread can be forked
    click.echo(ROW.format("fault", "tried", "met", "").rstrip())
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), seed)
        for counts in (
            full_disks(bench, sizes),
            damages(bench, damaged_files),
            signals(bench, signalled),
            kills(bench, killed),
        ):
            for count in counts:
                click.echo(ROW.format(count.fault, count.tried, count.met, count.remark).rstrip())
                wrong += count.tried - count.met
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
