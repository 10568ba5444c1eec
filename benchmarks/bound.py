"""How far the bound of ``eval --quick`` is from AutoAttack and from the worst case over the whole suite:
``python benchmarks/bound.py WHAT...``.

WHAT is a record's file, whose network is trained again in ``--runs-dir`` if it is not there (training repeats to the
last bit, on the kind of processor and number of threads of the record), the run folder of a finished network whose
record is filed (the same weights on a board) or lies beside it, or the name of a network that comes with the package,
such as ``lite:at``. PMA attacks the record's images; what the suite left standing is read from the record. Of each
network one line of Markdown, and the images on which the two disagree, boards apart and the best first. What is
measured of a record's file is kept, so that an interrupted command goes on. The digits boards, first seeds:

    python benchmarks/bound.py results/records/digits-*/digits-lt-ir20/*/small-s0-*.json --write

takes about 40 minutes on one core that does nothing else.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ltrobust_bench.plan.run import RunSection
    from ltrobust_bench.records.schema import Record

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "evaluation.md"
TABLE = re.compile(r"(?<=<!-- bound -->\n).*?(?=<!-- end -->)", re.DOTALL)
HEADER = (
    "| entry, seed | PMA (bound) | AutoAttack | worst case | gap | broken by PMA alone / by AutoAttack alone |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: |\n"
)


def line(found: dict[str, Any]) -> str:
    """What was found of one network, as a row of Markdown."""
    shown = "| {entry} | \u2264 {bound:.1f} | {auto:.1f} | {union:.1f} | {gap:+.1f} | "
    shown += "{pma_alone} / {auto_alone} of {images} |\n"
    return shown.format(**found, gap=found["bound"] - found["auto"])


def tables(measured: list[dict[str, Any]]) -> str:
    """All of it, a table for each board, the highest worst case first; then what that comes to."""
    text = ""
    for board in sorted({found["board"] for found in measured}, reverse=True):
        rows = sorted((f for f in measured if f["board"] == board), key=lambda found: -found["union"])
        gaps = sorted(found["bound"] - found["auto"] for found in rows)
        said = f"gap {gaps[0]:+.1f} to {gaps[-1]:+.1f}, median {median(gaps):+.1f}"
        text += f"{board}, {len(rows)} network{'s' * (len(rows) > 1)}: {said}.\n\n{HEADER}{''.join(map(line, rows))}\n"
    return text


def board_of(run: RunSection) -> str:
    """In words."""
    profile = "" if run.profile == "exp" else f", profile {run.profile}"
    return f"{run.protocol} on {run.dataset}, imbalance ratio {run.imbalance_ratio:g}{profile}"


def compared(record: Record, network: Path, limit_test: int | None, data_dir: Path | None, device: str) -> dict:
    """PMA's attack on a record's network beside what the record says."""
    from ltrobust_bench import verbs
    from ltrobust_bench.evaluation.examine import first_places
    from ltrobust_bench.records.schema import Standing
    from ltrobust_bench.report.aggregate import method_label
    from ltrobust_bench.scores.metrics import metrics_from_bits

    result = verbs.evaluate(network, attacks=["pma"], limit_test=limit_test, data_dir=data_dir, device=device)
    record = record.judged(Standing())  # what its suite left, whatever others broke since
    labels, run = record.labels(), record.run
    first = first_places(labels, len(labels) if limit_test is None else limit_test // len(run.train_counts))
    name = next(name for name in ("autoattack", "aa-small-c") if name in record.attacks)
    auto, union = (record.bits(which)[first] for which in (name, "union"))
    scores = {"auto": auto, "union": union, "bound": result.bits["pma"]}
    pma_broke, auto_broke = ~result.bits["pma"], ~auto
    return {
        "entry": f"{method_label(run)}, {run.seed}",
        "board": board_of(run),
        **{n: 100 * float(metrics_from_bits(b, labels[first], run.train_counts).balanced) for n, b in scores.items()},
        "pma_alone": int((pma_broke & ~auto_broke).sum()),
        "auto_alone": int((auto_broke & ~pma_broke).sum()),
        "images": len(auto),
    }


def trained_again(record: Record, runs_dir: Path, data_dir: Path | None, device: str) -> Path:
    """The network of a record, trained again if it is not in its run folder; its run folder."""
    from ltrobust_bench import verbs
    from ltrobust_bench.plan.request import Request

    folder = runs_dir / record.run.folder_name()
    if not (folder / "model.safetensors").exists():
        verbs.train(Request.of(record.run), runs_dir=runs_dir, data_dir=data_dir, device=device)
    return folder


def of_record(path: Path, runs_dir: Path, **how: Any) -> dict[str, Any] | None:
    """What is kept or measured of the network of a record's file; None, said, if it is another by now."""
    from ltrobust_bench import verbs
    from ltrobust_bench.files import write_text
    from ltrobust_bench.plan.code import package_sha256
    from ltrobust_bench.records.io import read_record

    record = read_record(path)
    network = trained_again(record, runs_dir, how["data_dir"], how["device"])
    loaded = verbs.load_model(network, device=how["device"])
    if loaded.weights_sha256 != record.result.weights_sha256:
        click.echo(f"{path}: trained again, the network has other weights", err=True)
        return None
    code = package_sha256("evaluation")
    kept = network / f"bound-{record.id}-{code[:8]}-{how['limit_test'] or 'all'}.json"
    if not kept.exists():
        write_text(kept, json.dumps(compared(record, network, **how)))
    return dict(json.loads(kept.read_text(encoding="utf-8")))


def of_network(run: Path, records: dict[Any, Record], **how: Any) -> dict[str, Any]:
    """What is measured of a finished network whose record is among these, by (run key, weights)."""
    from ltrobust_bench import verbs

    loaded = verbs.load_model(run, device=how["device"])
    record = records.get((loaded.run.key(), loaded.weights_sha256))
    if record is None:
        raise click.UsageError(f"there is no record of the weights in {run}.")
    return compared(record, run, **how)


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="WHAT...", type=click.Path(path_type=Path))
@click.option(
    "--results-dir", type=click.Path(path_type=Path), default=ROOT / "results", help="Where records are filed."
)
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("runs"), help="Where networks are trained.")
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Where data sets lie that do not come with the package."
)
@click.option("--limit-test", type=int, metavar="N", help="First N/C test images of each class.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--write", is_flag=True, help="Write the tables into docs/evaluation.md.")
def main(
    what: tuple[Path, ...],
    results_dir: Path,
    runs_dir: Path,
    data_dir: Path | None,
    limit_test: int | None,
    device: str,
    write: bool,
) -> None:
    """Compare PMA alone with what records say of the same networks."""
    from ltrobust_bench.files import write_text
    from ltrobust_bench.records.io import find_records

    how: dict[str, Any] = {"limit_test": limit_test, "data_dir": data_dir, "device": device}
    folders = [one for one in what if one.suffix != ".json"]
    known = find_records([results_dir / "records", *(run for run in folders if run.exists())])[0] if folders else []
    records = {(r.run.key(), r.result.weights_sha256): r for r in known}  # post-hoc methods share their base's weights
    measured = []
    for one in what:
        found = of_network(one, records, **how) if one in folders else of_record(one, runs_dir, **how)
        if found is not None:
            measured.append(found)
            click.echo(line(found), nl=False)
    text = tables(measured)
    click.echo(f"\n{text}", nl=False)
    if write:
        write_text(PAGE, TABLE.sub(lambda _: text, PAGE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
