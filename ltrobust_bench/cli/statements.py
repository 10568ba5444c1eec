"""``ltbench record show | sign | recheck``: what others said about records, and what it is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ltrobust_bench.cli.following import Follow, followed_in_logs
from ltrobust_bench.cli.shared import (
    PATH,
    console,
    data_dir_option,
    device_option,
    progress_on,
    results_dir_option,
    set_threads,
    threads_option,
)
from ltrobust_bench.cli.words import echo

if TYPE_CHECKING:
    from ltrobust_bench.records.schema import Record


@click.command(epilog="Example: ltbench record show results/records/digits-v0/digits-lt-ir20/at/small-s0-67cd3184.json")
@click.argument("records", nargs=-1, required=True, metavar="RECORD...", type=PATH)
@results_dir_option
def show(records: tuple[Path, ...], results_dir: Path) -> None:
    """A record's numbers, how far it is verified, and who said what about it.

    RECORD is a record's file or a run's folder. Statements that do not count are shown as claims; they change nothing.
    """
    from ltrobust_bench.records.io import read_record
    from ltrobust_bench.records.trust import judged

    for path in records:
        found = read_record(path)
        (known,), problems = judged([found], [path, results_dir], keep_retracted=True)
        for line in _lines(known):
            echo(line)
        for problem in problems:
            echo(f"note: {problem}", err=True)


def _lines(record: Record) -> list[str]:
    from ltrobust_bench.report.aggregate import method_label

    run, standing = record.run, record.standing
    numbers = ", ".join(
        f"{words} {100 * record.metrics(name).balanced:.1f}%"
        for name, words in (("clean", "clean"), ("union", "worst case"))
    )
    level = "not on a public board" if standing is None else standing.level
    lines = [
        f"{record.id}: {method_label(run)}, seed {run.seed}, on {run.dataset}, protocol {run.protocol}",
        f"  balanced accuracy: {numbers}",
        f"  verification: {level}",
    ]
    for said in () if standing is None else standing.said:
        who = f" by {said.by}" if said.by else ""
        lines.append(f"  {said.kind}{who}, {said.date}: {said.says} [{said.why}]")
    return lines


@click.command(epilog="Example: ltbench record sign results/retractions/0123456789ab.json --key ~/.ssh/id_ed25519")
@click.argument("statements", nargs=-1, required=True, metavar="STATEMENT...", type=PATH)
@click.option(
    "--key",
    required=True,
    type=PATH,
    metavar="FILE",
    help="Your SSH key, private, or public if an agent holds it.",
)
def sign(statements: tuple[Path, ...], key: Path) -> None:
    """Sign verifications, retractions or counterexamples with an SSH key, so that they count.

    Writes STATEMENT.sig, which is committed with the statement. It counts if the key is listed in the file `signers`
    of the results, and nobody's signature makes his own record a verified one.
    """
    from ltrobust_bench.errors import UsageError
    from ltrobust_bench.records.signing import SIGNERS, sign
    from ltrobust_bench.records.trust import heard

    known = {one.path.absolute() for path in statements for one in heard([path.absolute().parent.parent])[0]}
    for path in statements:
        if path.absolute() not in known:
            raise UsageError(f"{path} is no statement about a record in a folder of results.")
    for path in statements:
        sign(path, key)
    for path in statements:
        (one,) = [h for h in heard([path.absolute().parent.parent])[0] if h.path.absolute() == path.absolute()]
        note = f"as {one.signer}" if one.signer else f"with a key that {SIGNERS} does not list: it stays a claim"
        echo(f"signed {path} {note}")


@click.command(epilog="Example: ltbench record recheck --against origin/main")
@click.argument("statements", nargs=-1, metavar="[STATEMENT]...", type=PATH)
@click.option("--against", metavar="REF", help="Those that were added since this commit.")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="So many of them, drawn at random.")
@data_dir_option
@device_option
@threads_option
@results_dir_option
@followed_in_logs
@click.pass_context
def recheck(
    context: click.Context,
    statements: tuple[Path, ...],
    against: str | None,
    sample: int | None,
    data_dir: Path | None,
    device: str,
    threads: int | None,
    results_dir: Path,
    follow: Follow,
) -> None:
    """Compute statements about records again, from what is in the repository.

    STATEMENT is a file below the folder verifications of --results-dir (default: all). The record's network is the
    shipped one, or is trained again. Exit codes: 0 all hold, 1 one does not, 2 wrong usage.
    """
    import random

    from ltrobust_bench.records.history import changes_since
    from ltrobust_bench.records.verify import VERIFICATIONS
    from ltrobust_bench.verbs.rechecking import recheck, statements_in

    set_threads(threads)
    found = statements_in(results_dir, statements)
    if against is not None:
        added = changes_since([results_dir / VERIFICATIONS], against).touched
        found = [(one, record) for one, record in found if one.path.absolute() in added]
    if sample is not None and sample < len(found):
        found = random.sample(found, sample)
    wrong, out = 0, console()
    for one, record in found:
        if not one.results.again(record):
            echo(f"{one.path.name}: not looked at, its network is not in the repository")
            continue
        with progress_on(out, follow) as progress:
            against_it = recheck(one, record, data_dir=data_dir, device=device, progress=progress)
        wrong += bool(against_it)
        echo(f"{one.path.name}: {'; '.join(against_it) or 'holds'}")
    echo(f"{len(found)} statement{'' if len(found) == 1 else 's'} looked at, {wrong} do not hold")
    context.exit(1 if wrong else 0)
