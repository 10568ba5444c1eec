"""Options and output that several verbs share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ltrobust_bench.cli.completion import names_of
from ltrobust_bench.cli.devices import listens
from ltrobust_bench.cli.following import PATH, Follow, followers
from ltrobust_bench.cli.words import echo

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from rich.table import Table

    from ltrobust_bench.plan.request import Request
    from ltrobust_bench.progress import Progress
    from ltrobust_bench.protocol.spec import Crafting
    from ltrobust_bench.scores.metrics import Metrics

F = TypeVar("F", bound=Callable[..., Any])


def _shard(context: click.Context, option: click.Parameter, value: float | None) -> None:
    """Have networks and checkpoints written in pieces, until the command ends."""
    from ltrobust_bench.files import SHARD

    if value is not None:
        before = os.environ.get(SHARD)
        os.environ[SHARD] = str(value)
        context.call_on_close(lambda: os.environ.pop(SHARD) if before is None else os.environ.update({SHARD: before}))


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, shown in the given order."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


data_dir_option = click.option(
    "--data-dir", type=PATH, envvar="LTBENCH_DATA", help="Folder or archive of the data set.  [env: LTBENCH_DATA]"
)
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
MOST_THREADS = max(256, os.cpu_count() or 1)
"""With very many, torch's pool of threads runs out of memory, or crashes."""
threads_option = click.option(
    "--threads", type=click.IntRange(1, MOST_THREADS), help="CPU threads (default: torch's choice)."
)
runs_dir_option = click.option(
    "--runs-dir",
    type=PATH,
    default=Path("runs"),
    envvar="LTBENCH_RUNS",
    show_default=True,
    help="Where run folders live.  [env: LTBENCH_RUNS]",
)
results_dir_option = click.option(
    "--results-dir",
    type=PATH,
    default=Path("results"),
    envvar="LTBENCH_RESULTS",
    show_default=True,
    help="Records are filed in its folder records/; reports are written into it.  [env: LTBENCH_RESULTS]",
)
records_option = click.option(
    "--records",
    "records_dirs",
    type=PATH,
    multiple=True,
    help="Read records from this folder or file instead, e.g. runs; repeatable.",
)

board_options = options(
    click.option(
        "--dataset",
        "-d",
        shell_complete=names_of("datasets"),
        help="Data set of the board, if there are several boards.",
    ),
    click.option("--protocol", shell_complete=names_of("protocols"), help="Protocol of the board."),
    click.option("--track", type=click.Choice(["fixed", "paper"]), default="fixed", show_default=True),
    click.option("--imbalance-ratio", type=float, help="Imbalance ratio of the board."),
    click.option("--profile", help="Profile of the board."),
    click.option("--model", shell_complete=names_of("models"), help="Network of the board."),
)

split_options = options(
    click.option("--protocol", shell_complete=names_of("protocols"), help="Protocol (default: the data set's)."),
    click.option("--imbalance-ratio", type=float, help="Largest over smallest class (default: the protocol's)."),
    click.option(
        "--profile",
        type=click.Choice(["exp", "step", "balanced", "own"]),
        help="Shape of the long tail; balanced: the same total in equal classes, own: all images there are.",
    ),
)

request_options = options(
    click.option("--plugin", "plugins", multiple=True, shell_complete=names_of("plugins"),
                 help="Plug-in, e.g. awp or robustlt; repeatable."),
    click.option("--dataset", "-d", required=True, shell_complete=names_of("datasets"),
                 help="Data set, e.g. digits-lt or cifar10-lt; folder:PATH[@SIZE]: your own images, one subfolder per "
                 "class, scaled to SIZE x SIZE pixels (32); lists:TRAIN,TEST[@SIZE]: by two lists of `path label`."),
    click.option("--track", type=click.Choice(["fixed", "paper"]), default="fixed", show_default=True,
                 help="fixed: one budget for all; paper: the authors' recipe."),
    split_options,
    click.option("--model", shell_complete=names_of("models"),
                 help="Network (default: the protocol's, or the recipe's in track paper)."),
    click.option("--seed", "seeds", type=int, multiple=True, default=(0,), show_default=True,
                 help="Training seed; repeatable."),
    click.option("--set", "settings", multiple=True, metavar="NAME=VALUE",
                 help="A method option or recipe setting, e.g. tail=off or attack.steps=5; repeatable."),
    click.option("--epochs", type=int, help="Another budget than the recipe's (a reduced run)."),
    click.option("--limit-train", type=int, metavar="N", 
                 help="N training images or just below, in the same proportions (reduced)."),
    click.option("--limit-test", type=int, metavar="N", help="First N/C test images of each class (reduced)."),
    click.option("--extra-data", metavar="NAME|FILE.toml",
                 help="Training images beyond the split's, as `ltbench data declare` declared them; such an entry is "
                 "shown without a rank."),
    click.option("--pretrained", metavar="hub|FILE",
                 help="Of --model timm:NAME or torchvision:NAME: start from the library's own weights, or from those "
                 "in a file; such an entry is shown without a rank."),
    click.option("--precision", type=click.Choice(["tf32", "fp32", "bf16"]),
                 help="Of training (default: the protocol's); another one is named on boards. Verdicts are always "
                 "made in float32."),
    click.option("--crafting", type=click.Choice(["network", "folded", "winograd"]),
                 help="What is attacked while training: the network itself, or a faster copy of it "
                 "(docs/performance.md; default: the protocol's); equal up to rounding, another run key."),
    click.option("--compile/--no-compile", "compiled", default=False, show_default=True,
                 help="torch.compile; equal up to rounding, another run key."),
    click.option("--plain", is_flag=True, help="The reference path: nothing but what the formulas say, whatever the "
                 "protocol."),
    click.option("--accumulate", type=click.IntRange(1), metavar="N", default=1,
                 help="Pass each training batch in N parts, if memory holds no whole batch: losses see the whole "
                 "batch, batch norm a part; off-recipe."),
    click.option("--on-nan", type=click.Choice(["stop", "skip-batch", "lower-lr"]), default="stop", show_default=True,
                 help="Where a loss is not finite: stop, undo that step, or undo it and halve the learning rate from "
                 "there on; all but stop are off-recipe."),
    click.option("--fresh", is_flag=True, help="Begin again: what is in the run folder is removed."),
    click.option("--shard", type=click.FloatRange(min=1e-6), metavar="MB", callback=_shard, expose_value=False,
                 help="Write networks and checkpoints in pieces of at most MB, for places that take no larger files "
                 "(every command reads them as they are).  [env: LTBENCH_SHARD]"),
    data_dir_option,
    device_option,
    threads_option,
    runs_dir_option,
)  # fmt: skip

plan_options = options(
    click.option("--method", "-m", "method_names", multiple=True, required=True, shell_complete=names_of("methods"),
                 help="Defense; repeatable."),
    click.option("--holdout", type=click.Choice(["val"]),
                 help="val: train without a tenth of each class and test on it instead of the test set (reduced)."),
    click.option("--test-share", type=click.FloatRange(0.01, 0.9), metavar="SHARE",
                 help="Of folder:PATH: so much of the smallest class, and as many images of each other one, are tested "
                 "on (default: 0.2)."),
    click.option("--folds", type=click.IntRange(2, 99), metavar="N",
                 help="Of folder:PATH: N runs, each tested on another Nth (cross-validation)."),
    request_options,
)  # fmt: skip


def requests(
    out: Console,
    device: torch.device,
    *,
    method_names: tuple[str, ...],
    seeds: tuple[int, ...],
    settings: tuple[str, ...],
    crafting: Crafting | None,
    compiled: bool,
    plain: bool,
    on_nan: str,
    accumulate: int = 1,
    test_share: float | None = None,
    folds: int | None = None,
    **fields: Any,
) -> list[Request]:
    """One request for each method, seed and fold of ``plan_options``; says what is to be said about how it is computed.

    Raises:
        UsageError: see :class:`Request`.
    """
    from ltrobust_bench.compute.forwards import usable_policy
    from ltrobust_bench.data.registry import cuts_of
    from ltrobust_bench.errors import UsageError
    from ltrobust_bench.plan.request import Request

    policy, notes = usable_policy(device, fields["precision"], crafting, compiled, plain)
    for note in notes:
        out.print(note, style="yellow")
    by_hand: dict[str, Any] = parse_settings(settings)
    if on_nan != "stop":
        if by_hand.get("on_nan", on_nan) != on_nan:
            raise UsageError(f"--on-nan {on_nan} and --set on_nan={by_hand['on_nan']} contradict each other.")
        by_hand["on_nan"] = on_nan
    by_hand |= {"accumulate": accumulate} if accumulate > 1 else {}
    fields |= {"policy": policy, "settings": by_hand}
    datasets = cuts_of(fields.pop("dataset"), test_share, folds)
    return [Request(m, dataset, seed=s, **fields) for m in method_names for s in seeds for dataset in datasets]


def parse_settings(settings: tuple[str, ...], option: str = "--set", example: str = "attack.steps=5") -> dict[str, str]:
    """``("tail=off",)`` as a mapping.

    Raises:
        UsageError: for one without ``=``, and a name that is given twice.
    """
    from ltrobust_bench.errors import UsageError

    parsed: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"{option} {setting!r} is not NAME=VALUE; write for example {option} {example}.")
        if name.strip() in parsed:
            raise UsageError(f"{option} {name.strip()} is given twice, {parsed[name.strip()]} and {value.strip()}.")
        parsed[name.strip()] = value.strip()
    return parsed


def console(quiet: bool = False) -> Console:
    """Where results are printed; ``quiet``: where what is printed is dropped. Of several ranks of one run the first
    prints."""
    from ltrobust_bench.cli.terminal import Terminal

    return Terminal(highlight=False, markup=False, emoji=False, quiet=quiet or listens())


def print_or_write(text: str, output: Path | None) -> None:
    """Print a text, or write it into a file where one is named."""
    from ltrobust_bench.files import write_text

    if output is None:
        echo(text, nl=False)
    else:
        write_text(output, text)
        echo(f"wrote {output}")


def set_threads(threads: int | None) -> None:
    """Limit torch's CPU threads."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


@contextmanager
def progress_on(out: Console, follow: Follow = Follow()) -> Iterator[Progress]:  # noqa: B008 - frozen
    """Progress on a console, and to whoever else follows; of several ranks of one run the first tells it."""
    from ltrobust_bench.progress import Silent

    if listens():
        yield Silent()
        return

    with followers(out, follow) as progress:
        yield progress


def plain_table(title: str, caption: str) -> Table:
    """An empty table between title and caption, both at the left."""
    from rich import box
    from rich.table import Table

    left: Any = {"title_justify": "left", "caption_justify": "left"}
    return Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), **left)


def metrics_table(title: str, rows: dict[str, Metrics], images: int) -> Table:
    """Accuracies under each attack: balanced with its Wilson interval, by group, worst classes."""
    from ltrobust_bench.scores.intervals import wilson

    table = plain_table(
        title,
        "accuracy in %; union: per-image worst case of the whole suite; interval: Wilson, 95 %, this run only",
    )
    for name in ("", "balanced", "interval", "head", "medium", "tail", "worst\nclass", "worst\n10 %"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for name, m in rows.items():
        low, high = wilson(float(m.overall) * images, images)
        values = [m.head, m.medium, m.tail, m.worst_class, m.worst_tenth]
        table.add_row(
            name,
            f"{100 * float(m.balanced):.1f}",
            f"{100 * float(low):.1f}-{100 * float(high):.1f}",
            *("-" if v != v else f"{100 * float(v):.1f}" for v in values),
        )
    return table
