"""``ltbench eval``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ltrobust_bench.cli.attacking import (
    BOUND,
    Attacked,
    attack,
    attack_thoroughly,
    draw_curves,
    file_record,
    score_examples,
)
from ltrobust_bench.cli.combinations import refuse_unused, typed
from ltrobust_bench.cli.completion import names_of
from ltrobust_bench.cli.devices import on_devices, repeatable, started
from ltrobust_bench.cli.following import Follow, followed
from ltrobust_bench.cli.foreign import OWN_TERMS, foreign_model, foreign_options, only_source, print_log
from ltrobust_bench.cli.shared import (
    PATH,
    console,
    data_dir_option,
    device_option,
    results_dir_option,
    runs_dir_option,
    set_threads,
    threads_option,
)

if TYPE_CHECKING:
    from torch import nn

    from ltrobust_bench.evaluation.curves import CurveKind
    from ltrobust_bench.protocol.spec import Search

ATTACKING = {"attacks", "transfer_from", "thorough", "base", "preprocessing", "quick", "search", "again"}
LEAVES = {
    "examples": {*ATTACKING, "curves", "limit_test"},
    "curves": ATTACKING,
    "quick": {"attacks", "transfer_from", "thorough", "base", "preprocessing"},
    "thorough": {"attacks", "search"},
}
"""Ways of evaluating, and the options that each has no use for."""


@click.command(
    epilog="""\b
    Example: ltbench eval runs/at-digits-lt-ir20-small-s0-1a2b3c4d
             ltbench eval lite:at-bsl --attack pgd-20
             ltbench eval runs/at-digits-lt-ir20-small-s0-1a2b3c4d --quick
             ltbench eval --torch my_nets:defended --weights net.pt -d cifar10-lt --thorough --base honest.safetensors
             ltbench eval --torch my_nets:resnet --weights net.pt -d cifar10-lt
             ltbench eval --torch my_nets:pretrained -d cifar10-lt --normalise 0.49,0.48,0.45 0.25,0.24,0.26
             ltbench eval --torch my_nets:resnet --weights net.pt -d cifar10-lt --examples aa_standard.pth
             ltbench eval --log log.txt -d cifar10-lt
             ltbench eval --official robal --set variant=N --weights epoch80.pt -d cifar10-lt

    Only a whole evaluation of a network of ours makes a record."""
)
@click.argument("checkpoint", type=PATH, required=False)
@click.option(
    "--dataset",
    "-d",
    shell_complete=names_of("datasets"),
    help="Data set of a model that is not ours; refuses a network of ours of another.",
)
@click.option(
    "--attack",
    "-a",
    "attacks",
    multiple=True,
    shell_complete=names_of("attacks"),
    help="Only this attack: of the suite, or one that `ltbench list attacks` shows; repeatable.",
)
@click.option(
    "--examples",
    type=PATH,
    metavar="FILE",
    help="Score adversarial images made elsewhere instead of attacking: what AutoAttack or torchattacks saved, or an "
    ".npz of images and index.",
)
@click.option("--log", type=PATH, metavar="FILE", help="What a log of AutoAttack says, beside the protocol's terms.")
@click.option(
    "--transfer-from",
    "transfer_from",
    type=PATH,
    multiple=True,
    metavar="CHECKPOINT",
    help="Attack with PGD-20 crafted on another network. With --thorough: PMA is crafted on it, too; repeatable.",
)
@click.option(
    "--thorough",
    is_flag=True,
    help="After the suite, attack what stands with the adaptive suite (docs/evaluation.md); of our networks, on other "
    "entries of the board, too.",
)
@click.option("--base", type=PATH, metavar="CHECKPOINT", help="With --thorough: the honest network that it is made of.")
@click.option(
    "--preprocessing",
    multiple=True,
    metavar="NAME",
    help="With --thorough: a submodule that preprocesses images, for BPDA (default: those called preprocessing).",
)
@click.option("--quick", is_flag=True, help="PMA alone: an upper bound of the worst case, in minutes. Makes no record.")
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
    transfer_from: tuple[Path, ...],
    thorough: bool,
    base: Path | None,
    preprocessing: tuple[str, ...],
    quick: bool,
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
    from ltrobust_bench.errors import UsageError
    from ltrobust_bench.records.weights import is_name

    set_threads(threads)
    out = console()
    given_here = {name: text for name, text in typed().items() if (name, search) != ("search", "network")}
    for way, leaves in LEAVES.items():
        if way in given_here:
            refuse_unused(given_here[way], given_here, leaves=leaves)
    if log is not None:
        refuse_unused("--log", given_here, uses=("log", "dataset", "protocol"))
        print_log(out, log, dataset, terms["protocol"])
        return
    if not thorough and (base is not None or preprocessing or len(transfer_from) > 1):
        raise UsageError("--base, --preprocessing and several --transfer-from belong to --thorough.")
    asked = {"CHECKPOINT": checkpoint, "--robustbench": robustbench, "--torch": factory, "--official": official}
    source = only_source({k: v for k, v in asked.items() if v is not None}, weights, weights_key, settings)
    terms |= {"limit_test": limit_test}
    code: tuple[str, ...] = (factory.partition(":")[0],) if factory else ()
    subject: Path | nn.Module
    if checkpoint is not None:
        subject, name, folder = checkpoint, str(checkpoint), output
        own = checkpoint if checkpoint.is_dir() else checkpoint.parent
        place = runs_dir / f"eval-{name.replace(':', '-')}" if is_name(checkpoint) else own
    else:
        subject, name, dataset = foreign_model(
            out, source, str(asked[source]), weights, weights_key, settings, dataset, runs_dir, terms
        )
        folder = place = output or runs_dir / f"eval-{name}"
    attacked = Attacked(subject, name, dataset, terms, folder, place, code, device, out, follow)
    attacks = (BOUND,) if quick else attacks
    part = attacks or (transfer_from and not thorough) or limit_test is not None or curves or examples
    whole = checkpoint is not None and not part and all(terms[name] is None for name in OWN_TERMS)
    _see_whole(whole, thorough, again, output, search)
    record = file_record(attacked, results_dir, again, search) if whole else None
    if curves:
        draw_curves(attacked, curves)
    elif examples is not None:
        score_examples(attacked, examples)
    elif thorough:
        attack_thoroughly(attacked, record, base, transfer_from, preprocessing, runs_dir)
    elif not whole:
        attack(attacked, attacks, transfer_from[0] if transfer_from else None, search or "network")


def _see_whole(whole: bool, thorough: bool, again: bool, output: Path | None, search: Search | None) -> None:
    """Refuse what only a whole evaluation of a network of ours can do, and what it cannot.

    Raises:
        UsageError: for such an option.
    """
    from ltrobust_bench.errors import UsageError

    if not whole and again:
        raise UsageError("--again is for the whole evaluation of a network of ours, which makes a record.")
    if whole and not thorough and output is not None:
        raise UsageError("--output is for what makes no record: the whole evaluation of our network is in its record.")
    if started() > 1 and (not whole or thorough):
        raise UsageError("--devices is for the whole evaluation of a network of ours, which makes a record.")
    if started() > 1 and search == "bf16":
        raise UsageError("--devices does not go with --attack-search bf16.")
