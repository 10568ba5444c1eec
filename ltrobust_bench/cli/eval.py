"""``ltbench eval``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltrobust_bench.cli.devices import on_devices, repeatable, started
from ltrobust_bench.cli.following import Follow, followed
from ltrobust_bench.cli.shared import (
    PATH,
    console,
    data_dir_option,
    device_option,
    metrics_table,
    options,
    parse_settings,
    progress_on,
    results_dir_option,
    runs_dir_option,
    set_threads,
    split_options,
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

foreign_options = options(
    click.option("--robustbench", metavar="NAME", help="A model of RobustBench's zoo, e.g. Wong2020Fast."),
    click.option("--torch", "factory", metavar="MODULE:FACTORY", help="A network from your own code."),
    click.option("--official", metavar="METHOD",
                 help="A checkpoint of the RoBal, REAT or AT-BSL repository (--weights), with this method's head and "
                      "inference form."),
    click.option("--weights", type=PATH, metavar="FILE", help="Weights for --torch or --official: tensors only."),
    click.option("--set", "settings", multiple=True, metavar="NAME=VALUE",
                 help="An option of the --official method, e.g. variant=N; repeatable."),
    split_options,
)  # fmt: skip


@click.command(
    epilog="""\b
    Example: ltbench eval runs/at-digits-lt-ir20-small-s0-1a2b3c4d
             ltbench eval lite:at-bsl --attack pgd-20
             ltbench eval runs/at-digits-lt-ir20-small-s0-1a2b3c4d --quick
             ltbench eval --torch my_nets:defended --weights net.pt -d cifar10-lt --thorough --base honest.safetensors
             ltbench eval --torch my_nets:resnet --weights net.pt -d cifar10-lt
             ltbench eval --official robal --set variant=N --weights epoch80.pt -d cifar10-lt

    Only a whole evaluation of a network of ours makes a record."""
)
@click.argument("checkpoint", type=PATH, required=False)
@click.option("--dataset", "-d", help="Data set of a model that is not ours; refuses a network of ours of another.")
@click.option(
    "--attack",
    "-a",
    "attacks",
    multiple=True,
    help="Only this attack: of the suite, or one that `ltbench list attacks` shows; repeatable.",
)
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
    from ltrobust_bench.records.weights import is_name

    set_threads(threads)
    out = console()
    if quick:
        if thorough or attacks or transfer_from or curves:
            raise UsageError("--quick is PMA alone: leave --thorough, --attack, --transfer-from and --curve out.")
        attacks = (BOUND,)
    if thorough and (attacks or curves or search not in (None, "network")):
        raise UsageError("--thorough is the whole suite and more: leave --attack, --curve and --attack-search out.")
    if not thorough and (base is not None or preprocessing or len(transfer_from) > 1):
        raise UsageError("--base, --preprocessing and several --transfer-from belong to --thorough.")
    asked = {"CHECKPOINT": checkpoint, "--robustbench": robustbench, "--torch": factory, "--official": official}
    source = _only_source({name: value for name, value in asked.items() if value is not None}, weights, settings)
    terms |= {"limit_test": limit_test}
    subject: Path | nn.Module
    record: Record | None = None
    if checkpoint is not None:
        subject, name, folder = checkpoint, str(checkpoint), output
        own = checkpoint if checkpoint.is_dir() else checkpoint.parent
        place = runs_dir / f"eval-{name.replace(':', '-')}" if is_name(checkpoint) else own
    else:
        subject, name, dataset = _foreign(source, str(asked[source]), weights, settings, dataset, runs_dir, terms)
        folder = place = output or runs_dir / f"eval-{name}"
    part = attacks or (transfer_from and not thorough) or limit_test is not None
    own_terms = any(terms[name] is not None for name in ("protocol", "imbalance_ratio", "profile"))
    whole = checkpoint is not None and not (part or own_terms or curves)
    if started() > 1 and not whole:
        raise UsageError("--devices is for the whole evaluation of a network of ours, which makes a record.")
    if started() > 1 and search == "bf16":
        raise UsageError("--devices does not go with --attack-search bf16.")
    if curves:
        if search not in (None, "network"):
            raise UsageError("--attack-search does not go with --curve: a curve's attacks climb the network itself.")
        for kind in curves:
            with progress_on(out, follow) as progress:
                drawn = verbs.curve(subject, kind, dataset, device=device, progress=progress, **terms)
            print_curve(out, drawn, output or place)
        return
    if checkpoint is not None and whole:
        record = _file(out, checkpoint, dataset, terms["data_dir"], device, results_dir, again, search, follow)
        if not thorough:
            return
    search = search or "network"
    if thorough:
        others: dict[str, Path | str] = {path.name.lower(): path for path in transfer_from}
        if checkpoint is not None:
            from ltrobust_bench.verbs.adapting import beside

            known, entries = beside(verbs.load_model(checkpoint, device=device).run, runs_dir)
            base, others = base or known, entries | others
        with progress_on(out, follow) as progress:
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
        _show(out, result, name, "the suite and the adaptive suite", folder or place, "thorough.csv")
        print_broken(out, result)
        return
    with progress_on(out, follow) as progress:
        result = verbs.evaluate(
            subject,
            dataset,
            attacks=list(attacks),
            transfer_from=transfer_from[0] if transfer_from else None,
            device=device,
            state=folder / "evaluation.npz" if folder else None,
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
        out.print(f"wrote {folder / file}", soft_wrap=True)


def print_broken(out: Console, result: Evaluation) -> None:
    """What each attack of the adaptive suite broke of what everything before it had left standing."""
    images = len(result.labels)
    out.print(f"the suite leaves {int(result.frozen.sum())} of {images} images standing")
    for attack, broken in result.broken_after.items():
        out.print(f"  {attack}: breaks {broken} of them ({100 * broken / images:.1f} points)")


def _only_source(given: dict[str, object], weights: Path | None, settings: tuple[str, ...]) -> str:
    """The one place that a model was asked from."""
    from ltrobust_bench.errors import UsageError

    if len(given) != 1:
        seen = f"got {' and '.join(given)}" if given else "got none"
        raise UsageError(f"name one model: CHECKPOINT, --robustbench, --torch or --official; {seen}.")
    (source,) = given
    if weights is not None and source not in ("--torch", "--official"):
        raise UsageError(f"--weights belongs to --torch or --official, not to {source}.")
    if source == "--official" and weights is None:
        raise UsageError("--official needs the checkpoint: --weights FILE.")
    if settings and source != "--official":
        raise UsageError(f"--set belongs to --official, not to {source}.")
    return source


def _foreign(
    source: str,
    name: str,
    weights: Path | None,
    settings: tuple[str, ...],
    dataset: str | None,
    runs_dir: Path,
    terms: dict[str, Any],
) -> tuple[nn.Module, str, str]:
    """A model that is not ours, a name for it that two files of one name do not share, and its data set."""
    from ltrobust_bench.data.registry import locate
    from ltrobust_bench.errors import UsageError

    if dataset is None:
        if source != "--robustbench":
            raise UsageError(f"{source} needs --dataset NAME; `ltbench list datasets` shows them.")
        dataset = "cifar10-lt"
    known = locate(dataset, terms["data_dir"])[0].name
    if source == "--robustbench":
        from ltrobust_bench.interop.zoo import zoo_model

        model = zoo_model(name, known, runs_dir / "robustbench")
    elif source == "--torch":
        from ltrobust_bench.interop.factory import from_factory

        model = from_factory(name, weights)
    else:
        from ltrobust_bench.interop.official import from_official
        from ltrobust_bench.plan.task import make_task

        assert weights is not None
        task = make_task(dataset, **terms)
        model = from_official(weights, name, parse_settings(settings), task.split.train_counts, known)
    from ltrobust_bench.terms import canonical_digest
    from ltrobust_bench.training.checkpoint import weights_sha256

    digest = canonical_digest([source, name, sorted(settings), weights_sha256(model.state_dict())])[:8]
    stem = [weights.stem] if weights else []
    return model, "-".join([name.replace(":", "."), *stem, known, digest]), dataset


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
        out.print(note, style="yellow", soft_wrap=True)
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
        out.print(f"wrote {written}", soft_wrap=True)
