"""Models and evaluations that are not ours, on the command line of ``ltbench eval``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltrobust_bench.cli.shared import PATH, options, parse_settings, split_options

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

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


def only_source(given: Mapping[str, object], weights: Path | None, key: str | None, settings: tuple[str, ...]) -> str:
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


def foreign_model(
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

        model = from_factory(name, weights, key or "", lambda line: out.print(line))
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


def print_log(out: Console, path: Path, dataset: str | None, protocol: str | None) -> None:
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
        out.print(f"note: {remark}", style="yellow")
