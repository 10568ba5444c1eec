"""Which attacks there are; a protocol's ``kind`` is a name here."""

from __future__ import annotations

from collections.abc import Callable

from ltrobust_bench.registry import Entry, Registry

_HERE = "ltrobust_bench/attacks/registry.py"


def _built_in() -> list[Entry]:
    simple, official = "ltrobust_bench.attacks.pgd", "ltrobust_bench.attacks.auto"
    return [
        Entry("fgsm", f"{simple}:fgsm", "one signed gradient step (Goodfellow et al., ICLR 2015)", _HERE),
        Entry(
            "pgd",
            f"{simple}:pgd",
            "projected gradient ascent on cross-entropy (Madry et al., ICLR 2018)",
            _HERE,
        ),
        Entry(
            "cw",
            f"{simple}:cw",
            "projected gradient ascent on the margin loss (Carlini & Wagner, S&P 2017)",
            _HERE,
        ),
        Entry("mim", f"{simple}:mim", "momentum iterative method (Dong et al., CVPR 2018)", _HERE),
        Entry(
            "scaled-pgd",
            f"{simple}:scaled_pgd",
            "PGD on scaled logits, worst over the scales per image (after Hitaj et al. 2021)",
            _HERE,
        ),
        Entry(
            "autoattack",
            "ltrobust_bench.attacks.auto:autoattack",
            "AutoAttack standard by its authors' code (Croce & Hein, ICML 2020); aa-small-c below 4 classes",
            _HERE,
        ),
        Entry(
            "apgd-ce", f"{official}:apgd_ce", "auto-PGD on cross-entropy, one of AutoAttack's (official code)", _HERE
        ),
        Entry("apgd-dlr", f"{official}:apgd_dlr", "auto-PGD on the difference-of-logits ratio (official code)", _HERE),
        Entry("apgd-t", f"{official}:apgd_t", "targeted auto-PGD, one of AutoAttack's (official code)", _HERE),
        Entry("fab-t", f"{official}:fab_t", "targeted FAB, one of AutoAttack's (official code)", _HERE),
        Entry("square", f"{official}:square", "Square, black-box, one of AutoAttack's (official code)", _HERE),
        Entry("transfer", f"{simple}:transfer", "PGD on another model (Papernot et al. 2016)", _HERE),
    ]


attacks: Registry[Callable] = Registry("attack", discover=_built_in)
