"""``ltbench record``: what may be on a board, and how it gets there."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ltrobust_bench.cli import statements
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
    from ltrobust_bench.records.verify import Verification

by_option = click.option("--by", required=True, metavar="NAME", help="Who looked; one line that stays with the record.")

graph_option = click.option(
    "--graph", type=PATH, metavar="FILE", help="The network's graph, written elsewhere by `record graph`."
)


@click.group(name="record")
def command() -> None:
    """Validate, submit, show, verify, sign, recheck, lower, retract and export records; write networks as graphs.

    Records are append-only: a file below results/records is never edited or deleted, a wrong one is retracted.
    """


command.add_command(statements.show)
command.add_command(statements.sign)
command.add_command(statements.recheck)


@command.command(epilog="Example: ltbench record validate results/records --against origin/main")
@click.argument("paths", nargs=-1, type=PATH)
@click.option("--against", metavar="REF", help="Commit since which no record may have changed (default: HEAD).")
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
@results_dir_option
@click.pass_context
def validate(
    context: click.Context, paths: tuple[Path, ...], against: str | None, as_json: bool, results_dir: Path
) -> None:
    """Find what is wrong with records, in seconds: schema, terms, split, bits, cost, place, provenance, edits.

    PATHS are files or folders (default: the folder records of --results-dir). Files in a folder called records are
    what a board shows: they must be full runs, lie in their place, and name a clean commit; retractions beside that
    folder are checked with it. In a git checkout, files that the commit holds must still be as it holds them.

    Exit codes: 0 nothing wrong, 1 problems, 2 wrong usage.
    """
    from ltrobust_bench.records.validate import validate as examined

    report = examined(paths or (results_dir / "records",), against=against)
    if as_json:
        echo(json.dumps(asdict(report), indent=1))
    else:
        for problem in report.problems:
            echo(str(problem))
        retracted = f", {report.retracted} of them retracted" if report.retracted else ""
        compared = "; ".join(
            [f"compared with {report.against}" if report.against else "not compared with git", *report.notes]
        )
        found = f"{_count(report.records, 'record')}{retracted}, {_count(len(report.problems), 'problem')}"
        echo(f"{found}; {compared}")
    context.exit(1 if report.problems else 0)


@command.command(epilog="Example: ltbench record submit runs/reat-digits-lt-ir20-small-s0-1a2b3c4d")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=PATH)
@results_dir_option
@click.pass_context
def submit(context: click.Context, runs: tuple[Path, ...], results_dir: Path) -> None:
    """Put the records of finished runs in their place, and print the git commands that propose them.

    RUN is a run's folder or its record. Nothing is written unless every record passes the rules of `record validate`;
    a record that is there already stays as it is, unless it is another that no commit holds.
    """
    from ltrobust_bench.records.filing import filing, proposal, refusals
    from ltrobust_bench.records.io import read_record

    filings = []
    for run in runs:
        each = filing(read_record(run), results_dir, replace=True)
        if each not in filings:  # a run's folder and its record may both be named
            filings.append(each)
    problems = refusals(filings, results_dir)
    for problem in problems:
        echo(str(problem))
    if problems:
        echo(f"{_count(len(problems), 'problem')}; nothing was written")
        context.exit(1)
    for each in filings:
        echo(each.write())
    lines, obstacle = proposal(filings, results_dir)
    echo("To propose it, on a branch of its own:")
    for line in lines:
        echo(f"  {line}")
    if obstacle:
        echo(f"note: {obstacle}")


@command.command(epilog="Example: ltbench record ship runs/at-bsl-cifar10-lt-ir50-resnet8-s0-1a2b3c4d")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=PATH)
@click.option("--name", help="Such as lite:at-bsl (default: protocol and entry); for a single RUN.")
@results_dir_option
def ship(runs: tuple[Path, ...], name: str | None, results_dir: Path) -> None:
    """Put the networks of finished runs beside their filed records, under names that `eval` takes.

    They are copied to the folder weights of --results-dir and listed in its index.json; commit both. All together may
    have 8 MB.
    """
    from ltrobust_bench import verbs
    from ltrobust_bench.errors import UsageError

    if name is not None and len(runs) > 1:
        raise UsageError(f"--name names one network, and {len(runs)} runs are given.")
    for run in runs:
        echo(f"{verbs.ship(run, results_dir, name)}: {run}")


@command.command(epilog='Example: ltbench record retract 1a2b3c4d5e6f --reason "trained on the wrong split"')
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


@command.command(epilog="Example: ltbench record graph runs/R --output graph.safetensors")
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


@command.command(epilog="Example: ltbench record verify results/records/P/D/M/x.json --weights runs/R --by 'Jane Doe'")
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


@command.command(
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
    echo(f"{_count(statement.images, 'image')} looked at; {lost} that counted as robust broken")
    for reason in wrong:
        echo(f"not confirmed: {reason}")
    if statement.kind == "counterexamples" and not lost:
        echo("nothing was written: these examples break no image that counts as robust")
        return 0
    path = write_verification(statement, results_dir, examples)
    echo(f"record {record.id} {'disputed' if wrong else statement.kind}; wrote {path}, sign and commit it")
    return 1 if wrong else 0


@command.command(epilog="Example: ltbench record export --robustbench runs/at-cifar10-lt-ir50-resnet18-s0-1a2b3c4d")
@click.argument("record", type=PATH)
@click.option("--robustbench", is_flag=True, required=True, help="In the form of RobustBench's model_info.")
@click.option("--output", type=PATH, metavar="FILE", help="Write to a file instead.")
def export(record: Path, robustbench: bool, output: Path | None) -> None:
    """Print a record in another benchmark's form: RobustBench's model_info JSON.

    RECORD is a record or a run's folder. What keeps RobustBench from listing the model (another data set, radius or
    test set) is said, and the JSON is printed all the same.
    """
    from ltrobust_bench.files import write_text
    from ltrobust_bench.interop.model_info import model_info, obstacles
    from ltrobust_bench.records.io import read_record

    found = read_record(record)
    text = json.dumps(model_info(found), indent=2) + "\n"
    for obstacle in obstacles(found):
        echo(f"note: {obstacle}.", err=True)
    if output is None:
        echo(text, nl=False)
    else:
        write_text(output, text)
        echo(f"wrote {output}")


@command.command(epilog="Example: ltbench record schema > docs/record.schema.json")
def schema() -> None:
    """Print the JSON Schema of a record."""
    from ltrobust_bench.records.schema import json_schema

    echo(json_schema(), nl=False)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
