"""What attacks see of models that are built to fool them: ``python benchmarks/demonstration.py``.

Trains one honest network on digits-lt under digits-v0, wraps it in every way of
``ltrobust_bench/evaluation/demonstration.py``, attacks each with the protocol's whole suite and then thoroughly, with
the honest network as the base, and writes ``docs/demonstration.csv`` and the tables of ``docs/evaluation.md``. Each
model's result is kept with a digest of the package's code that made it, so that an interrupted command goes on and
several processes can share the models; a result of other code is made again unless ``--kept`` takes it as it is, and
the table names the code of each row. Two hours on one core; ``--limit-test 100 --leave-out square`` takes half an hour.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

DOCS = Path(__file__).resolve().parents[1] / "docs"
CODE = 8
"""Digits of the digest of the package's code."""
COLUMNS = ("clean", "pgd-20", "pgd-100", "scaled-pgd-20", "autoattack", "union", "thorough", "gap")
TABLE, SHARES = (
    re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", re.DOTALL) for name in ("demonstration", "shares")
)


def table(rows: Sequence[dict[str, str]], words: Sequence[str] = ("model", "flags", "code")) -> str:
    """The rows as Markdown; ``words``: columns that hold no numbers."""
    header = list(rows[0])
    lines = [header, ["---" if name in words else "---:" for name in header], *(list(row.values()) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def current(kept: Path) -> bool:
    """Whether a result is there, made by the code that there is now."""
    from ltrobust_bench.plan.code import package_sha256

    return kept.exists() and json.loads(kept.read_text(encoding="utf-8")).get("code") == package_sha256("evaluation")


def attacked(model: Any, honest: Any, limit_test: int | None, leave_out: Sequence[str], folder: Path) -> dict[str, Any]:
    """Accuracies in per cent, flags, and points that each attack of the adaptive suite took."""
    from ltrobust_bench import verbs
    from ltrobust_bench.plan.code import package_sha256

    base = None if model is honest else honest
    result = verbs.thorough(
        model, "digits-lt", base=base, leave_out=leave_out, limit_test=limit_test, device="cpu", folder=folder
    )
    names = [*(c for c in COLUMNS if c in (*result.bits,))]
    found: dict[str, Any] = {c: 100 * float(result.metrics(c).balanced) for c in names}
    found["union"] = 100 * float(result.frozen.mean())  # as many test images in each class
    found["thorough"] = 100 * float(result.metrics("union").balanced)
    found["code"] = package_sha256("evaluation")
    found["flags"] = [flag.name for flag in result.flags]
    found["shares"] = {name: 100 * broken / len(result.labels) for name, broken in result.broken_after.items()}
    return found


@click.command()
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option(
    "--network", type=click.Path(path_type=Path), metavar="RUN", help="The honest network, if it is trained already."
)
@click.option("--limit-test", type=int, metavar="N", help="First N/C test images of each class.")
@click.option("--leave-out", multiple=True, metavar="ATTACK", help="An attack of the adaptive suite; repeatable.")
@click.option("--model", "only", multiple=True, metavar="NAME", help="Only this model, and no table; repeatable.")
@click.option(
    "--kept", "only_kept", is_flag=True, help="Write the tables of the models whose results are kept already."
)
@click.option("--docs", type=click.Path(path_type=Path), default=DOCS, show_default=True, help="Folder to write to.")
def main(
    runs_dir: Path,
    network: Path | None,
    limit_test: int | None,
    leave_out: tuple[str, ...],
    only: tuple[str, ...],
    only_kept: bool,
    docs: Path,
) -> None:
    """Attack an honest network and the ones that are built to fool, and write the tables."""
    from ltrobust_bench import verbs
    from ltrobust_bench.evaluation.demonstration import DEMONSTRATIONS
    from ltrobust_bench.files import write_text

    network = network or verbs.train("at-bsl", "digits-lt", runs_dir=runs_dir, device="cpu").model_path
    honest = verbs.load_model(network, device="cpu").model
    models = {"honest": honest} | {name: make(honest) for name, (make, _) in DEMONSTRATIONS.items()}
    done: dict[str, dict[str, Any]] = {}
    for name in only or models:
        folder = runs_dir / "demonstration" / name.replace(" ", "-")
        kept = folder / f"result-{limit_test or 'all'}-{'-'.join(leave_out) or 'whole'}.json"
        if only_kept and not kept.exists():
            continue
        if not only_kept and not current(kept):
            write_text(kept, json.dumps(attacked(models[name], honest, limit_test, leave_out, folder)))
        done[name] = json.loads(kept.read_text(encoding="utf-8"))
        click.echo(f"{name}: union {done[name]['union']:.1f}, thorough {done[name]['thorough']:.1f}")
    if only:
        return
    rows, shares = [], []
    suite = list(dict.fromkeys(attack for found in done.values() for attack in found["shares"]))
    for name, found in done.items():
        found["gap"] = found["thorough"] - done["honest"]["thorough"]
        rows.append(
            {"model": name}
            | {c: f"{found[c]:.1f}" for c in COLUMNS}
            | {"flags": ", ".join(found["flags"]) or "none", "code": found.get("code", "older")[:CODE]}
        )
        took = {attack: f"{found['shares'][attack]:.1f}" if attack in found["shares"] else "-" for attack in suite}
        shares.append({"model": name} | took)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0], *suite], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        row | {a: s.replace("-", "") for a, s in took.items() if a != "model"}
        for row, took in zip(rows, shares, strict=True)
    )
    write_text(docs / "demonstration.csv", text.getvalue())
    page = docs / "evaluation.md"
    said = TABLE.sub(lambda _: table(rows), page.read_text(encoding="utf-8"))
    write_text(page, SHARES.sub(lambda _: table(shares), said))


if __name__ == "__main__":
    main()
