"""``ltbench eval``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltrobust_bench.cli.combinations import refuse_unused, typed
from ltrobust_bench.cli.completion import names_of
from ltrobust_bench.cli.devices import on_devices, repeatable, started
from ltrobust_bench.cli.following import Follow, followed
from ltrobust_bench.cli.foreign import OWN_TERMS, foreign_model, foreign_options, only_source, print_log
from ltrobust_bench.cli.shared import (
    PATH,
    console,
    data_dir_option,
    device_option,
    metrics_table,
    progress_on,
    results_dir_option,
    runs_dir_option,
    set_threads,
    threads_option,
)

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from ltrobust_bench.evaluation.curves import Curve, CurveKind
    from ltrobust_bench.evaluation.result import Evaluation
    from ltrobust_bench.protocol.spec import Search
    from ltrobust_bench.records.schema import Record

BOUND = "pma"
"""The attack of ``--quick``."""
ATTACKING = {"attacks", "transfer_from", "thorough", "base", "preprocessing", "quick", "search", "again"}
LEAVES = {
    "examples": {*ATTACKING, "curves", "limit_test"},
    "curves": ATTACKING,
    "quick": {"attacks", "transfer_from", "thorough", "base", "preprocessing"},
    "thorough": {"attacks", "search"},
}
"""Ways of evaluating, and the options that each has no use for."""


@click.command(
    epilog="""\b
    Example: ltbench eval runs/at-digits-lt-ir20-small-s0-1a2b3c4d
             ltbench eval lite:at-bsl --attack pgd-20
             ltbench eval runs/at-digits-lt-ir20-small-s0-1a2b3c4d --quick
             ltbench eval --torch my_nets:defended --weights net.pt -d cifar10-lt --thorough --base honest.safetensors
             ltbench eval --torch my_nets:resnet --weights net.pt -d cifar10-lt
             ltbench eval --torch my_nets:pretrained -d cifar10-lt --normalise 0.49,0.48,0.45 0.25,0.24,0.26
             ltbench eval --torch my_nets:resnet --weights net.pt -d cifar10-lt --examples aa_standard.pth
             ltbench eval --log log.txt -d cifar10-lt
             ltbench eval --official robal --set variant=N --weights epoch80.pt -d cifar10-lt

    Only a whole evaluation of a network of ours makes a record."""
)
@click.argument("checkpoint", type=PATH, required=False)
@click.option(
    "--dataset",
    "-d",
    shell_complete=names_of("datasets"),
    help="Data set of a model that is not ours; refuses a network of ours of another.",
)
@click.option(
    "--attack",
    "-a",
    "attacks",
    multiple=True,
    shell_complete=names_of("attacks"),
    help="Only this attack: of the suite, or one that `ltbench list attacks` shows; repeatable.",
)
@click.option(
    "--examples",
    type=PATH,
    metavar="FILE",
    help="Score adversarial images made elsewhere instead of attacking: what AutoAttack or torchattacks saved, or an "
    ".npz of images and index.",
)
@click.option("--log", type=PATH, metavar="FILE", help="What a log of AutoAttack says, beside the protocol's terms.")
@click.option(
    "--transfer-from",
    "transfer_from",
    type=PATH,
    multiple=True,
    metavar="CHECKPOINT",
    help="Attack with PGD-20 crafted on another network. With --thorough: PMA is crafted on it, too; repeatable.",
)
@click.option(
    "--thorough",
    is_flag=True,
    help="After the suite, attack what stands with the adaptive suite (docs/evaluation.md); of our networks, on other "
    "entries of the board, too.",
)
@click.option("--base", type=PATH, metavar="CHECKPOINT", help="With --thorough: the honest network that it is made of.")
@click.option(
    "--preprocessing",
    multiple=True,
    metavar="NAME",
    help="With --thorough: a submodule that preprocesses images, for BPDA (default: those called preprocessing).",
)
@click.option("--quick", is_flag=True, help="PMA alone: an upper bound of the worst case, in minutes. Makes no record.")
@click.option(
    "--curve",
    "curves",
    type=click.Choice(["eps", "steps"]),
    multiple=True,
    help="Robust accuracy along the radius or the number of PGD steps, as CSV and figure; repeatable.",
)
@foreign_options
@click.option("--output", type=PATH, help="Folder for tables, curves and the state of an interrupted evaluation.")
@click.option("--limit-test", type=int, metavar="N", help="First N/C test images of each class.")
@click.option(
    "--attack-search",
    "search",
    type=click.Choice(["network", "folded", "winograd", "tf32", "bf16"]),
    help="What the attacks climb: the network itself, or a faster copy (docs/performance.md). The network itself "
    "confirms every success in float32, and is searched where it does not. Default: for a record the protocol's, else "
    "the network.",
)
@click.option("--again", is_flag=True, help="Attack again although there is a record.")
@data_dir_option
@device_option
@threads_option
@runs_dir_option
@results_dir_option
@on_devices
@repeatable
@followed
def command(
    checkpoint: Path | None,
    dataset: str | None,
    attacks: tuple[str, ...],
    examples: Path | None,
    log: Path | None,
    transfer_from: tuple[Path, ...],
    thorough: bool,
    base: Path | None,
    preprocessing: tuple[str, ...],
    quick: bool,
    curves: tuple[CurveKind, ...],
    robustbench: str | None,
    factory: str | None,
    official: str | None,
    weights: Path | None,
    weights_key: str | None,
    settings: tuple[str, ...],
    output: Path | None,
    limit_test: int | None,
    search: Search | None,
    again: bool,
    device: str,
    threads: int | None,
    runs_dir: Path,
    results_dir: Path,
    follow: Follow,
    **terms: Any,
) -> None:
    """Attack a finished network: one of ours (a run folder, its model.safetensors, or the name of one that comes with
    the package), or somebody else's."""
    from ltrobust_bench import verbs
    from ltrobust_bench.errors import UsageError
    from ltrobust_bench.evaluation.state import state_name
    from ltrobust_bench.records.weights import is_name
    from ltrobust_bench.verbs.rescoring import rescore

    set_threads(threads)
    out = console()
    given_here = {name: text for name, text in typed().items() if (name, search) != ("search", "network")}
    for way, leaves in LEAVES.items():
        if way in given_here:
            refuse_unused(given_here[way], given_here, leaves=leaves)
    if log is not None:
        refuse_unused("--log", given_here, uses=("log", "dataset", "protocol"))
        print_log(out, log, dataset, terms["protocol"])
        return
    if quick:
        attacks = (BOUND,)
    if not thorough and (base is not None or preprocessing or len(transfer_from) > 1):
        raise UsageError("--base, --preprocessing and several --transfer-from belong to --thorough.")
    asked = {"CHECKPOINT": checkpoint, "--robustbench": robustbench, "--torch": factory, "--official": official}
    given = {name: value for name, value in asked.items() if value is not None}
    source = only_source(given, weights, weights_key, settings)
    terms |= {"limit_test": limit_test}
    subject: Path | nn.Module
    record: Record | None = None
    if checkpoint is not None:
        subject, name, folder = checkpoint, str(checkpoint), output
        own = checkpoint if checkpoint.is_dir() else checkpoint.parent
        place = runs_dir / f"eval-{name.replace(':', '-')}" if is_name(checkpoint) else own
    else:
        subject, name, dataset = foreign_model(
            out, source, str(asked[source]), weights, weights_key, settings, dataset, runs_dir, terms
        )
        folder = place = output or runs_dir / f"eval-{name}"
    part = attacks or (transfer_from and not thorough) or limit_test is not None
    own_terms = any(terms[name] is not None for name in OWN_TERMS)
    whole = checkpoint is not None and not (part or own_terms or curves or examples)
    if not whole and again:
        raise UsageError("--again is for the whole evaluation of a network of ours, which makes a record.")
    if whole and not thorough and output is not None:
        raise UsageError("--output is for what makes no record: the whole evaluation of our network is in its record.")
    if started() > 1 and (not whole or thorough):
        raise UsageError("--devices is for the whole evaluation of a network of ours, which makes a record.")
    if started() > 1 and search == "bf16":
        raise UsageError("--devices does not go with --attack-search bf16.")
    if curves:
        for kind in curves:
            with progress_on(out, follow) as progress:
                drawn = verbs.curve(subject, kind, dataset, device=device, progress=progress, **terms)
            print_curve(out, drawn, output or place)
        return
    if checkpoint is not None and whole:
        record = _file(out, checkpoint, dataset, terms["data_dir"], device, results_dir, again, search, follow)
        if not thorough:
            return
    if examples is not None:
        del terms["limit_test"]
        with progress_on(out, follow) as progress:
            scored = rescore(subject, dataset, examples, device=device, progress=progress, **terms)
        _show(out, scored, name, examples.name, folder, "evaluation-examples.csv")
        return
    search = search or "network"
    if thorough:
        from ltrobust_bench.verbs.adapting import beside, named_apart

        with progress_on(out, follow) as progress:
            entries: dict[str, Path | str] = {}
            if checkpoint is not None:
                own_run = verbs.load_model(checkpoint, device=device).run
                known, entries = beside(own_run, runs_dir, progress, base=base)
                base = base or known
            others = entries | named_apart(transfer_from, entries)
            result = verbs.thorough(
                subject,
                dataset,
                base=base,
                others=others,
                preprocessing=preprocessing,
                before=record,
                folder=folder or (checkpoint if checkpoint is not None and checkpoint.is_dir() else None),
                device=device,
                code=[factory.partition(":")[0]] if factory else (),
                progress=progress,
                **terms,
            )
        file = "thorough.csv" if limit_test is None else f"thorough-first-{limit_test}.csv"
        _show(out, result, name, "the suite and the adaptive suite", folder or place, file)
        print_broken(out, result)
        return
    asked_for = {"attacks": attacks, "transfer_from": [str(path) for path in transfer_from], "search": search}
    told_apart = {name: value for name, value in (asked_for | terms).items() if name != "data_dir"}
    with progress_on(out, follow) as progress:
        result = verbs.evaluate(
            subject,
            dataset,
            attacks=list(attacks),
            transfer_from=transfer_from[0] if transfer_from else None,
            device=device,
            state=folder / state_name("evaluation", **told_apart) if folder else None,
            code=[factory.partition(":")[0]] if factory else (),
            search=search,
            progress=progress,
            **terms,
        )
    what = "part of the suite" if attacks or transfer_from else "the suite"
    what += "" if search == "network" else f", searched on a copy: {search}"
    file = "evaluation.csv" if search == "network" else f"evaluation-{search}.csv"
    if quick:
        what, file = "PMA alone: the worst case is at most that", "bound.csv"
    _show(out, result, name, what, folder, file)


def _show(out: Console, result: Evaluation, name: str, what: str, folder: Path | None, file: str) -> None:
    """A result as a table, with its flags, and as CSV in a folder."""
    from ltrobust_bench.cli.run import print_flags
    from ltrobust_bench.files import make_folder, write_text

    bound = result.attacks == [BOUND]
    shown = {a: (f"\u2264 {a}" if bound and a != "clean" else a) for a in ("clean", *result.attacks)}
    rows = {text: result.metrics(a) for a, text in shown.items()} | ({} if bound else {"union": result.metrics()})
    out.print(metrics_table(f"{name} ({what}, no record)", rows, len(result.labels)))
    print_flags(out, result.flags)
    if folder is not None:
        make_folder(folder)
        write_text(folder / file, result.csv())
        out.print(f"wrote {folder / file}")


def print_broken(out: Console, result: Evaluation) -> None:
    """What each attack of the adaptive suite broke of what everything before it had left standing."""
    images = len(result.labels)
    out.print(f"the suite leaves {int(result.frozen.sum())} of {images} images standing")
    for attack, broken in result.broken_after.items():
        out.print(f"  {attack}: breaks {broken} of them ({100 * broken / images:.1f} points)")


def _file(
    out: Console,
    checkpoint: Path,
    dataset: str | None,
    data_dir: Path | None,
    device: str,
    results_dir: Path,
    again: bool,
    search: Search | None,
    follow: Follow,
) -> Record:
    """The whole evaluation of a network of ours, which makes its record."""
    from ltrobust_bench import verbs
    from ltrobust_bench.cli.run import print_record
    from ltrobust_bench.errors import CheckpointError
    from ltrobust_bench.plan.code import code_of
    from ltrobust_bench.records.filing import unfit_note

    loaded = verbs.load_model(checkpoint, device=device)
    if dataset is not None and dataset != loaded.run.dataset:
        raise CheckpointError(f"{checkpoint} was trained on {loaded.run.dataset}, not on {dataset}.")
    # A network outside its run folder has nowhere to keep state and record: its record is only filed.
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    own = folder if folder.name == loaded.run.folder_name() else None
    task = loaded.task(data_dir)
    note = unfit_note(loaded.run, [*loaded.code, code_of(loaded.run, "evaluation")])
    if note:
        out.print(note, style="yellow")
    with progress_on(out, follow) as progress:
        record = verbs.finish_run(loaded, task, own, results_dir, progress, again=again, search=search)
    print_record(out, record, loaded.class_names, own)
    return record


def print_curve(out: Console, curve: Curve, folder: Path) -> None:
    """A curve as a table, and as CSV and figure in a folder."""
    from rich.table import Table

    from ltrobust_bench.evaluation.curves import SHOWN
    from ltrobust_bench.files import make_folder, write_text
    from ltrobust_bench.report.figures import curve_figure, save

    make_folder(folder)
    table = Table("radius" if curve.kind == "eps" else "steps", *SHOWN, box=None)
    for x, point in zip(curve.x, curve.points, strict=True):
        table.add_row(f"{x:.4g}", *(f"{100 * float(getattr(point, g)):.1f}" for g in SHOWN))
    out.print(table)
    path = folder / f"curve-{curve.kind}.csv"
    write_text(path, curve.csv())
    for written in (path, *save(curve_figure(curve), folder / f"curve-{curve.kind}")):
        out.print(f"wrote {written}")
