"""How far the bound of ``eval --quick`` is from AutoAttack and from the worst case over the whole suite:
``python benchmarks/bound.py RUN...``.

RUN is the run folder of a finished network whose record is filed (the same weights on a board) or lies beside it, or
the name of one that comes with the package, such as ``lite:at``. PMA attacks the record's images; what the suite left
standing is read from the record. One line of Markdown each, and the images on which the two disagree.
"""

from __future__ import annotations

from pathlib import Path

import click

RESULTS = Path(__file__).resolve().parents[1] / "results"


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--results-dir", type=click.Path(path_type=Path), default=RESULTS, help="Where records are filed.")
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Where data sets lie that do not come with the package."
)
@click.option("--limit-test", type=int, metavar="N", help="First N/C test images of each class.")
@click.option("--device", default="cpu", show_default=True)
def main(runs: tuple[Path, ...], results_dir: Path, data_dir: Path | None, limit_test: int | None, device: str) -> None:
    """Compare PMA alone with what records say of the same networks."""
    from ltrobust_bench import verbs
    from ltrobust_bench.evaluation.examine import first_places
    from ltrobust_bench.records.io import find_records
    from ltrobust_bench.scores.metrics import metrics_from_bits

    known = find_records([results_dir / "records", *(run for run in runs if run.exists())])[0]
    records = {(r.run.key(), r.result.weights_sha256): r for r in known}  # post-hoc methods share their base's weights
    click.echo(
        "| entry, seed | PMA (bound) | AutoAttack | worst case | gap | broken by PMA alone / by AutoAttack alone |"
    )
    click.echo("| --- | ---: | ---: | ---: | ---: | ---: |")
    for run in runs:
        loaded = verbs.load_model(run, device=device)
        record = records.get((loaded.run.key(), loaded.weights_sha256))
        if record is None:
            raise click.UsageError(f"there is no record of the weights in {run}.")
        result = verbs.evaluate(run, attacks=["pma"], limit_test=limit_test, data_dir=data_dir, device=device)
        labels, counts = record.labels(), record.run.train_counts
        first = first_places(labels, len(labels) if limit_test is None else limit_test // len(counts))
        name = next(name for name in ("autoattack", "aa-small-c") if name in record.attacks)
        theirs = [record.bits(which)[first] for which in (name, "union")]
        scores = (result.metrics("pma"), *(metrics_from_bits(bits, labels[first], counts) for bits in theirs))
        bound, auto, union = (100 * float(score.balanced) for score in scores)
        broken = ~result.bits["pma"], ~theirs[0]
        only = int((broken[0] & ~broken[1]).sum()), int((broken[1] & ~broken[0]).sum())
        who = f"{record.run.method}, {record.run.seed}"
        values = f"\u2264 {bound:.1f} | {auto:.1f} | {union:.1f} | {bound - auto:+.1f} | {only[0]} / {only[1]}"
        click.echo(f"| {who} | {values} of {len(broken[0])} |")


if __name__ == "__main__":
    main()
