"""``ltbench eval``"""

from __future__ import annotations

from collections.abc import Mapping
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

OWN_TERMS = ("protocol", "imbalance_ratio", "profile", "train_counts", "normalise")
"""Terms of an evaluation that are not those of the network's own record."""


def _numbers(text: str, option: str) -> list[float]:
    from ltrobust_bench.errors import UsageError
    from ltrobust_bench.numbers import number

    try:
        return [number(part) for part in text.split(",")]
    except UsageError:
        raise UsageError(f"{option} {text!r} is no list of numbers; write for example 0.4914,0.4822,0.4465.") from None


def _constants(
    context: click.Context, parameter: click.Parameter, given: tuple[str, str] | None
) -> tuple[list[float], list[float]] | None:
    return None if given is None else (_numbers(given[0], "--normalise"), _numbers(given[1], "--normalise"))


def _counts(context: click.Context, parameter: click.Parameter, given: str | None) -> list[float] | None:
    return None if given is None else _numbers(given, "--train-counts")


foreign_options = options(
    click.option("--robustbench", metavar="NAME", help="A model of RobustBench's zoo, e.g. Wong2020Fast."),
    click.option("--torch", "factory", metavar="MODULE:FACTORY", help="A network from your own code."),
    click.option("--official", metavar="METHOD",
                 help="A checkpoint of the RoBal, REAT or AT-BSL repository (--weights), with this method's head and "
                      "inference form."),
    click.option("--weights", type=PATH, metavar="FILE",
                 help="Weights for --torch or --official: tensors only. Without it, --torch takes the network as the "
                 "factory returns it."),
    click.option("--weights-key", metavar="KEY",
                 help="Which of several sets of weights in the file, e.g. state_dict_ema."),
    click.option("--normalise", nargs=2, callback=_constants, metavar="MEAN STD",
                 help="The model wants (x - MEAN) / STD: one number each, or one for each channel, with commas."),
    click.option("--train-counts", callback=_counts, metavar="N,N,...",
                 help="Training images of each class, in label order, of a model trained on a split of its own; they "
                 "define head, medium and tail."),
    click.option("--set", "settings", multiple=True, metavar="NAME=VALUE",
                 help="An option of the --official method, e.g. variant=N; repeatable."),
    split_options,
)  # fmt: skip


@click.command(
    epilog="""\b
    Example: ltbench eval runs/at-digits-lt-ir20-small-s0-1a2b3c4d
             ltbench eval lite:at-bsl --attack pgd-20
             ltbench eval --torch my_nets:resnet --weights net.pt -d cifar10-lt
             ltbench eval --torch my_nets:pretrained -d cifar10-lt --normalise 0.49,0.48,0.45 0.25,0.24,0.26
             ltbench eval --torch my_nets:resnet --weights net.pt -d cifar10-lt --examples aa_standard.pth
             ltbench eval --log log.txt -d cifar10-lt
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
    help="Only this attack: of the suite, or autoattack, apgd-ce, apgd-dlr, apgd-t, fab-t, square; repeatable.",
)
@click.option(
    "--examples",
    type=PATH,
    metavar="FILE",
    help="Score adversarial images made elsewhere instead of attacking: what AutoAttack or torchattacks saved, or an "
    ".npz of images and index.",
)
@click.option("--log", type=PATH, metavar="FILE", help="What a log of AutoAttack says, beside the protocol's terms.")
@click.option("--transfer-from", type=PATH, metavar="CHECKPOINT", help="Attack with PGD-20 crafted on another network.")
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
    transfer_from: Path | None,
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
    from ltrobust_bench.records.weights import is_name
    from ltrobust_bench.verbs.rescoring import rescore

    set_threads(threads)
    out = console()
    if log is not None:
        _print_log(out, log, dataset, terms["protocol"])
        return
    asked = {"CHECKPOINT": checkpoint, "--robustbench": robustbench, "--torch": factory, "--official": official}
    given = {name: value for name, value in asked.items() if value is not None}
    source = _only_source(given, weights, weights_key, settings)
    terms |= {"limit_test": limit_test}
    subject: Path | nn.Module
    if checkpoint is not None:
        subject, name, folder = checkpoint, str(checkpoint), output
        own = checkpoint if checkpoint.is_dir() else checkpoint.parent
        place = runs_dir / f"eval-{name.replace(':', '-')}" if is_name(checkpoint) else own
    else:
        subject, name, dataset = _foreign(
            out, source, str(asked[source]), weights, weights_key, settings, dataset, runs_dir, terms
        )
        folder = place = output or runs_dir / f"eval-{name}"
    part = attacks or transfer_from is not None or limit_test is not None
    own_terms = any(terms[name] is not None for name in OWN_TERMS)
    whole = checkpoint is not None and not (part or own_terms or curves or examples)
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
        _file(out, checkpoint, dataset, terms["data_dir"], device, results_dir, again, search, follow)
        return
    if examples is not None:
        if part or curves or search not in (None, "network"):
            raise UsageError("--examples scores the images in a file: leave out what is about attacks.")
        del terms["limit_test"]
        with progress_on(out, follow) as progress:
            scored = rescore(subject, dataset, examples, device=device, progress=progress, **terms)
        _print_result(out, scored, f"{name} ({examples.name}, no record)", folder, "examples")
        return
    search = search or "network"
    with progress_on(out, follow) as progress:
        result = verbs.evaluate(
            subject,
            dataset,
            attacks=list(attacks),
            transfer_from=transfer_from,
            device=device,
            state=folder / "evaluation.npz" if folder else None,
            code=[factory.partition(":")[0]] if factory else (),
            search=search,
            progress=progress,
            **terms,
        )
    what = "part of the suite" if attacks or transfer_from is not None else "the suite"
    what += "" if search == "network" else f", searched on a copy: {search}"
    _print_result(out, result, f"{name} ({what}, no record)", folder, "" if search == "network" else search)


def _print_result(out: Console, result: Evaluation, title: str, folder: Path | None, kind: str) -> None:
    """A result as a table with its flags, and as CSV in a folder."""
    from ltrobust_bench.cli.run import print_flags
    from ltrobust_bench.files import write_text

    rows = {a: result.metrics(a) for a in ("clean", *result.attacks, "union")}
    out.print(metrics_table(title, rows, len(result.labels)))
    print_flags(out, result.flags)
    if folder is not None:
        path = folder / (f"evaluation-{kind}.csv" if kind else "evaluation.csv")
        write_text(path, result.csv())
        out.print(f"wrote {path}", soft_wrap=True)


def _print_log(out: Console, path: Path, dataset: str | None, protocol: str | None) -> None:
    """What a log of AutoAttack says, with what it cannot say."""
    from rich.table import Table

    from ltrobust_bench.data.registry import protocol_for
    from ltrobust_bench.errors import UsageError
    from ltrobust_bench.interop.autoattack_log import read_log
    from ltrobust_bench.numbers import number
    from ltrobust_bench.scores.intervals import wilson

    if dataset is None:
        raise UsageError("--log needs --dataset NAME, whose protocol it is compared with.")
    log, terms = read_log(path), protocol_for(dataset, protocol)
    table = Table("", "accuracy", "interval", box=None)
    for name, share in {"clean": log.clean, **log.after}.items():
        low, high = (float("nan"),) * 2 if log.images is None else wilson(share * log.images, log.images)
        interval = "-" if log.images is None else f"{100 * float(low):.1f}-{100 * float(high):.1f}"
        table.add_row(name, f"{100 * share:.2f}", interval)
    out.print(table)
    out.print(
        f"{log.images or 'an unknown number of'} images; a log tells no class from another: --examples scores images"
    )
    for remark in log.remarks(number(terms.terms(dataset).epsilon), terms.threat_model):
        out.print(f"note: {remark}", style="yellow", soft_wrap=True)


def _only_source(given: Mapping[str, object], weights: Path | None, key: str | None, settings: tuple[str, ...]) -> str:
    """The one place that a model was asked from."""
    from ltrobust_bench.errors import UsageError

    if len(given) != 1:
        seen = f"got {' and '.join(given)}" if given else "got none"
        raise UsageError(f"name one model: CHECKPOINT, --robustbench, --torch or --official; {seen}.")
    (source,) = given
    if weights is None and key is not None:
        raise UsageError("--weights-key says which weights of a file are meant: --weights FILE.")
    if weights is not None and source not in ("--torch", "--official"):
        raise UsageError(f"--weights belongs to --torch or --official, not to {source}.")
    if source == "--official" and weights is None:
        raise UsageError("--official needs the checkpoint: --weights FILE.")
    if settings and source != "--official":
        raise UsageError(f"--set belongs to --official, not to {source}.")
    return source


def _foreign(
    out: Console,
    source: str,
    name: str,
    weights: Path | None,
    key: str | None,
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

        model = from_factory(name, weights, key or "", lambda line: out.print(line, soft_wrap=True))
    else:
        from ltrobust_bench.interop.official import from_official
        from ltrobust_bench.plan.task import make_task

        assert weights is not None
        own = {term: value for term, value in terms.items() if term not in ("train_counts", "normalise")}
        counts = terms["train_counts"] or make_task(dataset, **own).split.train_counts
        model = from_official(weights, name, parse_settings(settings), [int(count) for count in counts], known)
    from ltrobust_bench.evaluation.identity import tensors_of
    from ltrobust_bench.terms import canonical_digest
    from ltrobust_bench.training.checkpoint import weights_sha256

    digest = canonical_digest([source, name, sorted(settings), weights_sha256(tensors_of(model))])[:8]
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
) -> None:
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
    task = verbs.task_of(loaded.run, data_dir)
    note = unfit_note(loaded.run, [*loaded.code, code_of(loaded.run, "evaluation")])
    if note:
        out.print(note, style="yellow", soft_wrap=True)
    with progress_on(out, follow) as progress:
        record = verbs.finish_run(loaded, task, own, results_dir, progress, again=again, search=search)
    print_record(out, record, own)


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
