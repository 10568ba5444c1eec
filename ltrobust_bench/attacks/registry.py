"""Which attacks there are; a protocol's ``kind`` is a name here."""

from __future__ import annotations

from collections.abc import Callable

from ltrobust_bench.registry import Entry, Registry

_HERE = "ltrobust_bench/attacks/registry.py"


def _built_in() -> list[Entry]:
    simple = "ltrobust_bench.attacks.pgd"
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
    ]


attacks: Registry[Callable] = Registry("attack", discover=_built_in)
