"""``ltbench predict``"""

from __future__ import annotations

from pathlib import Path

import click

from ltrobust_bench.cli.shared import PATH, console, device_option
from ltrobust_bench.cli.words import echo


@click.command(
    epilog="""\b
    Example: ltbench predict runs/at-bsl-folder-photos-64px-ir3.8-small-s0-1a2b3c4d new/*.jpg
             ltbench predict runs/at-bsl-folder-photos-64px-ir3.8-small-s0-1a2b3c4d new/ --json
             ltbench predict lite:at-bsl cat.png"""
)
@click.argument("run", type=PATH)
@click.argument("images", type=PATH, nargs=-1, required=True)
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="So many classes.")
@click.option("--json", "as_json", is_flag=True, help="For programs: every probability.")
@device_option
def command(run: Path, images: tuple[Path, ...], top: int, as_json: bool, device: str) -> None:
    """What a finished network says of pictures: the most probable classes, and a warning where answers of that class
    are easily changed by an attacker.

    RUN is a run folder, its model.safetensors, or the name of a network that comes with the package. Of a folder all
    pictures below it are taken. Pictures are scaled as those that it was trained on.
    """
    from ltrobust_bench.data.folders import pictures_below
    from ltrobust_bench.verbs import load_model
    from ltrobust_bench.verbs.prediction import Prediction

    pictures = [one for path in images for one in (pictures_below(path) if path.is_dir() else [path])]
    found = load_model(run, device=device).predict(pictures)
    assert isinstance(found, list)
    if as_json:
        import json

        echo(json.dumps([_values(path, one) for path, one in zip(pictures, found, strict=True)], indent=1))
        return
    out = console()
    for path, one in zip(pictures, found, strict=True):
        out.print(f"{path}: {one.best(top)}")
    warnings = dict.fromkeys(one.warning for one in found if isinstance(one, Prediction) and one.warning)
    for warning in warnings:
        out.print(f"warning: {warning}", style="yellow")
    if all(one.robust is None for one in found):
        out.print(
            "how robust these answers are is not known: no record of its attacks lies beside the network.",
            style="yellow",
        )


def _values(path: Path, one: object) -> dict[str, object]:
    from dataclasses import asdict

    return {"image": str(path), **asdict(one), "warning": one.warning}  # type: ignore[call-overload, attr-defined]
