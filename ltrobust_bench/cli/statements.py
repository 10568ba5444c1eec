"""``ltbench record show | verify | lower | retract | sign | recheck | graph``: what others say about records."""

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
from ltrobust_bench.cli.words import counted, echo

if TYPE_CHECKING:
    from ltrobust_bench.records.schema import Record
    from ltrobust_bench.records.verify import Verification

by_option = click.option("--by", required=True, metavar="NAME", help="Who looked; one line that stays with the record.")

graph_option = click.option(
    "--graph", type=PATH, metavar="FILE", help="The network's graph, written elsewhere by `record graph`."
)


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


@click.command(epilog="Example: ltbench record verify results/records/P/D/M/x.json --weights runs/R --by 'Jane Doe'")
@click.argument("record", type=PATH)
@click.option(
    "--weights", type=PATH, metavar="FILE", help="The record's network: model.safetensors, or its run folder."
)
@click.option(
    "--images", type=click.IntRange(1), default=100, show_default=True, help="Size of the random sample, 50 or more."
)
@click.option("--all", "everything", is_flag=True, help="Attack all test images.")
@click.option("--retrain", is_flag=True, help="Do the whole run again instead: train, and attack everything.")
@graph_option
@click.option("--thorough", is_flag=True, help="Attack what the suite left standing with the adaptive suite.")
@click.option("--base", type=PATH, metavar="FILE", help="With --thorough: the network that the record's is built on.")
@by_option
@data_dir_option
@device_option
@threads_option
@results_dir_option
@followed_in_logs
@click.pass_context
def verify(
    context: click.Context,
    record: Path,
    weights: Path | None,
    images: int,
    everything: bool,
    retrain: bool,
    graph: Path | None,
    thorough: bool,
    base: Path | None,
    by: str,
    data_dir: Path | None,
    device: str,
    threads: int | None,
    results_dir: Path,
    follow: Follow,
) -> None:
    """Attack a record's network again, or train it again, and write down what came out.

    No code of the method runs in this process: the network is written as a graph of tensor operations, or trained, in
    a process apart, and the graph is attacked here. A network that cannot be written as one stays claimed.

    The statement goes to the folder verifications of --results-dir and is committed like a record; it makes the record
    `re-evaluated` or `retrained`, or disputes it. With --thorough it says what the adaptive suite broke: an entry whose
    gradients may mislead is not ranked before. Exit codes: 0 confirmed, 1 not, 2 wrong usage.
    """
    from ltrobust_bench.errors import UsageError
    from ltrobust_bench.records.io import read_record
    from ltrobust_bench.verbs.verification import Where, attacked_thoroughly, re_evaluate
    from ltrobust_bench.verbs.verification import retrain as train_again

    if retrain == (weights is not None):
        raise UsageError("give either --weights FILE (attack again) or --retrain (train again).")
    if retrain and graph is not None:
        raise UsageError("--graph FILE belongs to --weights FILE: what is trained again has a graph of its own.")
    if thorough and (retrain or everything):
        raise UsageError("--thorough attacks all that stands: leave --all and --retrain out.")
    if base is not None and not thorough:
        raise UsageError("--base belongs to --thorough.")
    set_threads(threads)
    found, out = read_record(record), console()
    where = Where(by, data_dir, device, graph)
    with progress_on(out, follow) as progress:
        if weights is None:
            statement = train_again(found, where, progress=progress)
        elif thorough:
            folder = weights if weights.is_dir() else None
            statement = attacked_thoroughly(found, weights, where, base=base, folder=folder, progress=progress)
        else:
            sample = None if everything else images
            statement = re_evaluate(found, weights, where, images=sample, progress=progress)
    context.exit(_state(found, statement, results_dir))


@click.command(
    epilog="Example: ltbench record lower results/records/P/D/M/x.json --weights runs/R --examples found.npz "
    "--by 'Jane Doe'"
)
@click.argument("record", type=PATH)
@click.option("--weights", type=PATH, metavar="FILE", required=True, help="The record's network.")
@click.option(
    "--examples",
    type=PATH,
    metavar="FILE.npz",
    required=True,
    help="Arrays `index` (places in the data set's test set) and `images` (float in [0, 1], or uint8).",
)
@graph_option
@by_option
@data_dir_option
@device_option
@results_dir_option
def lower(
    record: Path,
    weights: Path,
    examples: Path,
    graph: Path | None,
    by: str,
    data_dir: Path | None,
    device: str,
    results_dir: Path,
) -> None:
    """Lower an entry by adversarial examples that you found, whatever the attack was.

    Each image must be a test image moved by at most the protocol's epsilon. Those that fool the network count as
    broken from then on.
    """
    from ltrobust_bench.records.io import read_record
    from ltrobust_bench.verbs.counterexamples import examples_to_file, try_examples
    from ltrobust_bench.verbs.verification import Where

    found = read_record(record)
    statement = try_examples(found, weights, examples, Where(by, data_dir, device, graph))
    _state(found, statement, results_dir, examples_to_file(examples))


def _state(record: Record, statement: Verification, results_dir: Path, examples: bytes | None = None) -> int:
    """Write a statement and say what follows; the exit code."""
    from ltrobust_bench.records.verify import objections, standing, write_verification

    wrong = objections(record, statement)
    broken = standing(record, [statement]).broken
    lost = 0 if broken is None else int(broken.sum())
    echo(f"{counted(statement.images, 'image')} looked at; {lost} that counted as robust broken")
    for reason in wrong:
        echo(f"not confirmed: {reason}")
    if statement.kind == "counterexamples" and not lost:
        echo("nothing was written: these examples break no image that counts as robust")
        return 0
    path = write_verification(statement, results_dir, examples)
    echo(f"record {record.id} {'disputed' if wrong else statement.kind}; wrote {path}, sign and commit it")
    return 1 if wrong else 0


@click.command(epilog='Example: ltbench record retract 1a2b3c4d5e6f --reason "trained on the wrong split"')
@click.argument("record", metavar="ID")
@click.option("--reason", required=True, help="One line for whoever meets the number elsewhere.")
@results_dir_option
def retract(record: str, reason: str, results_dir: Path) -> None:
    """Say that a record no longer counts; boards leave it out from then on.

    ID is the record's, from the column `records` of leaderboard.csv. The record stays; a file is added to
    the folder retractions of --results-dir, which is committed like a record.
    """
    from ltrobust_bench.records.io import record_files
    from ltrobust_bench.records.retract import retract as add
    from ltrobust_bench.records.validate import load

    documents, _ = load(record_files(results_dir / "records"))
    path = add(record, reason, results_dir, {d.record.id: d.place or "" for d in documents})
    echo(f"wrote {path}; sign it (ltbench record sign) and commit it: unsigned, it is a claim on a public board")


@click.command(epilog="Example: ltbench record graph runs/R --output graph.safetensors")
@click.argument("network", metavar="NETWORK")
@click.option("--output", type=PATH, metavar="FILE", required=True, help="Where to write it.")
def graph(network: str, output: Path) -> None:
    """Write a network as a graph of tensor operations, by which `record verify` judges it.

    NETWORK is model.safetensors, its run folder, or the name of a network that comes with the package. This runs the
    code of its method; `verify` and `lower` do it in a process apart. To keep a stranger's code off your machine, do
    it in a container and give them the file with --graph.
    """
    from ltrobust_bench.judge.graph import write_graph
    from ltrobust_bench.verbs.loading import graph_of_network

    written = graph_of_network(network)
    write_graph(output, written)
    echo(f"wrote {output}: {len(written.graph.nodes)} operations, SHA-256 {written.sha256[:12]}")


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
    echo(f"{counted(len(found), 'statement')} looked at, {wrong} do not hold")
    context.exit(1 if wrong else 0)


COMMANDS = (show, verify, lower, retract, sign, recheck, graph)
