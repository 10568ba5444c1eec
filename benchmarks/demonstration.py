"""What attacks see of models that are built to fool them: ``python benchmarks/demonstration.py``.

Trains one honest network on digits-lt under digits-v0, wraps it in every way of
``ltrobust_bench/evaluation/demonstration.py``, attacks each with the protocol's whole suite, and writes
``docs/demonstration.csv`` and the table of ``docs/evaluation.md``. A quarter of an hour on one core.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import click

DOCS = Path(__file__).resolve().parents[1] / "docs"
COLUMNS = ("clean", "pgd-20", "pgd-100", "scaled-pgd-20", "autoattack", "union")
TABLE = re.compile(r"(?<=<!-- demonstration -->\n).*?(?=<!-- end -->)", re.DOTALL)


def table(rows: list[dict[str, str]]) -> str:
    """The rows as Markdown."""
    header = list(rows[0])
    lines = [header, ["---", *["---:"] * len(COLUMNS), "---"], *(list(row.values()) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


@click.command()
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option("--limit-test", type=int, metavar="N", help="First N/C test images of each class.")
@click.option("--docs", type=click.Path(path_type=Path), default=DOCS, show_default=True, help="Folder to write to.")
def main(runs_dir: Path, limit_test: int | None, docs: Path) -> None:
    """Attack an honest network and the ones that are built to fool, and write the table."""
    from ltrobust_bench import verbs
    from ltrobust_bench.evaluation.demonstration import DEMONSTRATIONS
    from ltrobust_bench.files import write_text

    trained = verbs.train("at-bsl", "digits-lt", runs_dir=runs_dir, device="cpu")
    honest = verbs.load_model(trained.model_path, device="cpu").model
    models = {"honest": honest} | {name: make(honest) for name, (make, _) in DEMONSTRATIONS.items()}
    rows = []
    for name, model in models.items():
        result = verbs.evaluate(model, "digits-lt", limit_test=limit_test, device="cpu")
        accuracies = {c: f"{100 * float(result.metrics(c).balanced):.1f}" for c in COLUMNS}
        rows.append({"model": name} | accuracies | {"flags": ", ".join(flag.name for flag in result.flags) or "none"})
        click.echo("  ".join(rows[-1].values()))
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(docs / "demonstration.csv", text.getvalue())
    page = docs / "evaluation.md"
    write_text(page, TABLE.sub(lambda _: table(rows), page.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
