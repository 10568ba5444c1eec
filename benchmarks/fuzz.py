"""Odd input of every kind, against everything that reads it: make fuzz, or

    python benchmarks/fuzz.py --cases 100000
    python benchmarks/fuzz.py --kind npz --cases 1000 --seed 37

Sound files (records, statements, cards, protocols, plans, archives, pictures, npz files, weights, checkpoints, graphs)
and command lines are mutated as their structure suggests, and given to the package. A case may be accepted or refused,
with one line that prints and exit code 0, 1 or 2. A traceback, a hang, too much memory or another exit code is a fault,
and so is another verdict about a mutated record whose verdict is known. hypothesis draws the cases and looks for the
smallest faulty one; its files stay in the folder that is printed, and the same kind and seed find it again.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from pathlib import Path

import click

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from fuzzing import KINDS, Limits, campaign  # noqa: E402

ROOM = 4_000_000_000
"""Bytes of address space beyond what the process has at first; who asks for more is refused."""
STUCK = 600
"""Seconds after which a case that no signal can interrupt ends the program, with a traceback of where it is."""
ROW = "{:<12} {:>8} {:>9} {:>9} {:>9} {:>8}  {}"


@click.command()
@click.option("--cases", type=click.IntRange(1), default=100_000, show_default=True, help="In all, over the kinds.")
@click.option("--kind", "names", type=click.Choice(sorted(KINDS)), multiple=True, help="Only this one; repeatable.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the first 1,000 cases of a kind."
)
@click.option(
    "--kept",
    type=click.Path(path_type=Path),
    default=Path("fuzz"),
    show_default=True,
    help="Where the smallest faulty case of a kind is left.",
)
@click.option("--seconds", type=float, default=Limits.seconds, show_default=True, help="Of the processor, for a case.")
@click.option("--memory", type=int, default=Limits.memory, show_default=True, help="Bytes that a case may take.")
def main(cases: int, names: tuple[str, ...], seed: int, kept: Path, seconds: float, memory: int) -> None:
    """Fuzz everything that reads what somebody else made."""
    if hasattr(resource, "RLIMIT_AS") and Path("/proc/self/statm").exists():
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, resource.RLIM_INFINITY))
    limits, faults, total = Limits(seconds=seconds, memory=memory, stuck=STUCK), 0, 0
    chosen = [KINDS[name] for name in names] or list(KINDS.values())
    shares = sum(kind.share for kind in chosen)
    click.echo(ROW.format("kind", "cases", "accepted", "refused", "slowest", "memory", "fault"))
    with tempfile.TemporaryDirectory(prefix="ltbench-fuzz-") as cache:
        os.environ["LTBENCH_CACHE"] = cache
        for kind in chosen:
            with tempfile.TemporaryDirectory(prefix="ltbench-fuzz-") as folder:
                count = round(cases * kind.share / shares)
                tally = campaign(kind(Path(folder)), count, seed, kept.resolve(), limits)
            ends, fault = tally.ends, tally.fault
            total, faults = total + ends.total(), faults + bool(fault)
            said = f"{fault}; python benchmarks/fuzz.py --kind {kind.name} --seed {tally.seed}; {kept / kind.name}"
            click.echo(
                ROW.format(
                    kind.name, ends.total(), ends["accepted"], ends["refused"], f"{tally.slowest:.2f} s",
                    f"{tally.most / 1e6:.0f} MB", said if fault else "none",
                )
            )  # fmt: skip
    click.echo(f"{total} cases of {len(chosen)} kinds, {faults} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
