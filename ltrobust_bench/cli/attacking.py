"""The ways in which ``ltbench eval`` attacks a model: each does one, shows what came out and writes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltrobust_bench.cli.following import Follow
from ltrobust_bench.cli.shared import metrics_table, progress_on

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.console import Console
    from torch import nn

    from ltrobust_bench.evaluation.curves import Curve, CurveKind
    from ltrobust_bench.evaluation.result import Evaluation
    from ltrobust_bench.progress import Progress
    from ltrobust_bench.protocol.spec import Search
    from ltrobust_bench.records.schema import Record

BOUND = "pma"
"""The attack of ``--quick``."""


@dataclass(frozen=True)
class Attacked:
    """A model to be attacked, and where everything about it goes.

    Attributes:
        subject: a network of ours by its path or name, or anybody's module.
        name: of it, for people.
        dataset: None: the one that our network was trained on.
        terms: the evaluation's other terms, as the verbs call them: ``protocol``, ``limit_test``, ``data_dir``, ...
        folder: for tables and the state of an interrupted evaluation; None: there is neither.
        place: for curves and thorough evaluations, which are always written.
        code: names of the modules that it is from.
        device: as torch calls it.
        out, follow: where results and progress are shown.
    """

    subject: Path | nn.Module
    name: str
    dataset: str | None
    terms: dict[str, Any]
    folder: Path | None
    place: Path
    code: tuple[str, ...]
    device: str
    out: Console
    follow: Follow

    def progress(self) -> AbstractContextManager[Progress]:
        """Progress that is shown."""
        return progress_on(self.out, self.follow)


def file_record(asked: Attacked, results_dir: Path, again: bool, search: Search | None) -> Record:
    """The whole evaluation of a network of ours, which makes its record. One that comes with the package has a run
    folder of its own."""
    from ltrobust_bench import verbs
    from ltrobust_bench.cli.run import print_record
    from ltrobust_bench.errors import CheckpointError
    from ltrobust_bench.plan.code import code_of
    from ltrobust_bench.records.filing import unfit_note
    from ltrobust_bench.records.weights import is_name

    checkpoint = asked.subject
    assert isinstance(checkpoint, Path)
    loaded = verbs.load_model(checkpoint, device=asked.device)
    if asked.dataset is not None and asked.dataset != loaded.run.dataset:
        raise CheckpointError(f"{checkpoint} was trained on {loaded.run.dataset}, not on {asked.dataset}.")
    # A file outside its run folder has nowhere to keep state and record: its record is only filed.
    own = asked.place if is_name(checkpoint) or asked.place.name == loaded.run.folder_name() else None
    task = loaded.task(asked.terms["data_dir"])
    note = unfit_note(loaded.run, [*loaded.code, code_of(loaded.run, "evaluation")])
    if note:
        asked.out.print(note, style="yellow")
    with asked.progress() as progress:
        record = verbs.finish_run(loaded, task, own, results_dir, progress, again=again, search=search)
    print_record(asked.out, record, loaded.class_names, own)
    return record


def attack(asked: Attacked, attacks: Iterable[str], transfer_from: Path | None, search: Search) -> None:
    """The suite, or the attacks that were named, without a record."""
    from ltrobust_bench import verbs
    from ltrobust_bench.evaluation.state import state_name

    names = list(attacks)
    sources = [str(transfer_from)] if transfer_from else []
    told_apart = {"attacks": names, "transfer_from": sources, "search": search, **asked.terms, "data_dir": None}
    with asked.progress() as progress:
        result = verbs.evaluate(
            asked.subject,
            asked.dataset,
            attacks=names,
            transfer_from=transfer_from,
            device=asked.device,
            state=asked.folder / state_name("evaluation", **told_apart) if asked.folder else None,
            code=asked.code,
            search=search,
            progress=progress,
            **asked.terms,
        )
    what = "part of the suite" if names or transfer_from else "the suite"
    what += "" if search == "network" else f", searched on a copy: {search}"
    file = "evaluation.csv" if search == "network" else f"evaluation-{search}.csv"
    if result.attacks == [BOUND]:
        what, file = "PMA alone: the worst case is at most that", "bound.csv"
    show(asked, result, what, asked.folder, file)


def attack_thoroughly(
    asked: Attacked,
    record: Record | None,
    base: Path | None,
    transfer_from: tuple[Path, ...],
    preprocessing: tuple[str, ...],
    runs_dir: Path,
) -> None:
    """The adaptive suite on what the suite, or the record, left standing."""
    from ltrobust_bench import verbs
    from ltrobust_bench.verbs.adapting import beside, named_apart

    own = asked.subject if isinstance(asked.subject, Path) else None
    with asked.progress() as progress:
        entries: dict[str, Path | str] = {}
        if own is not None:
            run = verbs.load_model(own, device=asked.device).run
            known, entries = beside(run, runs_dir, progress, base=base)
            base = base or known
        result = verbs.thorough(
            asked.subject,
            asked.dataset,
            base=base,
            others={**entries, **named_apart(transfer_from, entries)},
            preprocessing=preprocessing,
            before=record,
            folder=asked.folder or (own if own is not None and own.is_dir() else None),
            device=asked.device,
            code=asked.code,
            progress=progress,
            **asked.terms,
        )
    limit = asked.terms["limit_test"]
    file = "thorough.csv" if limit is None else f"thorough-first-{limit}.csv"
    show(asked, result, "the suite and the adaptive suite", asked.folder or asked.place, file)
    asked.out.print(f"the suite leaves {int(result.frozen.sum())} of {len(result.labels)} images standing")
    for name, broken in result.broken_after.items():
        asked.out.print(f"  {name}: breaks {broken} of them ({100 * broken / len(result.labels):.1f} points)")


def score_examples(asked: Attacked, examples: Path) -> None:
    """Adversarial images that were made elsewhere; their file says which test images they are of."""
    from ltrobust_bench.verbs.rescoring import rescore

    terms = {name: value for name, value in asked.terms.items() if name != "limit_test"}
    with asked.progress() as progress:
        scored = rescore(asked.subject, asked.dataset, examples, device=asked.device, progress=progress, **terms)
    show(asked, scored, examples.name, asked.folder, "evaluation-examples.csv")


def draw_curves(asked: Attacked, kinds: Iterable[CurveKind]) -> None:
    """Robust accuracy along the radius or the number of steps."""
    from ltrobust_bench import verbs

    for kind in kinds:
        with asked.progress() as progress:
            drawn = verbs.curve(
                asked.subject, kind, asked.dataset, device=asked.device, progress=progress, **asked.terms
            )
        _print_curve(asked.out, drawn, asked.folder or asked.place)


def show(asked: Attacked, result: Evaluation, what: str, folder: Path | None, file: str) -> None:
    """A result as a table, with its flags, and as CSV in a folder."""
    from ltrobust_bench.cli.run import print_flags
    from ltrobust_bench.files import make_folder, write_text

    bound = result.attacks == [BOUND]
    shown = {a: (f"\u2264 {a}" if bound and a != "clean" else a) for a in ("clean", *result.attacks)}
    rows = {text: result.metrics(a) for a, text in shown.items()} | ({} if bound else {"union": result.metrics()})
    asked.out.print(metrics_table(f"{asked.name} ({what}, no record)", rows, len(result.labels)))
    print_flags(asked.out, result.flags)
    if folder is not None:
        make_folder(folder)
        write_text(folder / file, result.csv())
        asked.out.print(f"wrote {folder / file}")


def _print_curve(out: Console, curve: Curve, folder: Path) -> None:
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
