"""``ltbench export``"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ltrobust_bench.cli.shared import PATH
from ltrobust_bench.cli.words import echo


@click.command(
    epilog="""\b
    Example: ltbench export runs/at-digits-lt-ir20-small-s0-1a2b3c4d --format onnx
             ltbench export lite:at-bsl --format pt2 --output at-bsl.pt2"""
)
@click.argument("run", type=PATH)
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "torchscript", "pt2"]),
    default="onnx",
    show_default=True,
    help="onnx needs pip install 'ltrobust-bench[export]'; pt2 is torch.export's.",
)
@click.option("--output", "-o", type=PATH, metavar="FILE", help="Default: model.onnx and so on beside the network.")
def command(run: Path, form: Any, output: Path | None) -> None:
    """A finished network as a file for other programs: bytes uint8 [B, height, width, channels] in, logits and
    probabilities out. The file is read again, and must compute what the network does.

    RUN is a run folder, its model.safetensors, or the name of a network that comes with the package.
    """
    from ltrobust_bench.data.registry import dataset_spec
    from ltrobust_bench.verbs import load_model
    from ltrobust_bench.verbs.exporting import export

    path, difference = export(run, form, output)
    loaded = load_model(run, device="cpu")
    channels, height, width = dataset_spec(loaded.run.dataset).shape
    echo(f"wrote {path}; read again, its logits differ by at most {difference:.1g} from the network's")
    echo(f"in:  images, uint8 [B, {height}, {width}, {channels}]")
    echo(f"out: logits and probabilities, float32 [B, {len(loaded.class_names)}]")
    names = [*loaded.class_names[:5], *(["..."] if len(loaded.class_names) > 5 else [])]
    echo(f"classes, and how pictures are scaled, stand in the file: {', '.join(names)}")
