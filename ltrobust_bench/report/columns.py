"""What every column of the CSV files means, in one line each."""

from __future__ import annotations

_BOARD = {
    "board": "name of the board; on one board are runs with the same terms, images, network and attacks",
    "protocol": "protocol the runs were made under",
    "protocol_digest": "first 12 hex digits of the digest of what the protocol states for the data set",
    "protocol_status": "frozen: for papers; candidate: may still change; "
    "disposable or smoke: not for papers; unknown: not installed here",
    "dataset": "data set that the training images were cut from",
    "imbalance_ratio": "training images of the largest class over those of the smallest",
    "profile": "how class sizes fall: exp, step, balanced (the same total in equal classes), own (as found)",
    "model": "network",
    "track": "fixed: one training budget for every method; paper: the authors' recipe",
    "scope": "full, or reduced: images or epochs were cut by hand",
}
_SEEDS = "runs that differ in the training seed only; percentages are their mean"
_METHOD = "method and plug-ins, with the settings that differ from the track's defaults"
_INTERVAL = "t over seeds; wilson: one seed, the test images' chance alone without the spread between seeds"
_STD = "standard deviation over seeds, points; empty with one seed"


def _with_spread(meanings: dict[str, str], no_wilson: tuple[str, ...] = ()) -> dict[str, str]:
    """Standard deviation and interval of each of some columns."""
    found: dict[str, str] = {}
    for name in meanings:
        empty = "; empty with one seed" if name in no_wilson else ""
        ends = {"low": f"{name}, lower end of its 95 % interval{empty}", "high": f"{name}, upper end{empty}"}
        found |= {f"{name}_std": f"{name}, {_STD}", **{f"{name}_{end}": text for end, text in ends.items()}}
    return found


_AUTOATTACK = "autoattack: standard version by its authors' code; aa-small-c: what stands in for it below 4 classes"

LEADERBOARD = {
    **_BOARD,
    "rank": "1 plus the number of entries above that a paired test resolves as better; empty: not ranked",
    "method": _METHOD,
    "union_balanced": "worst case: share of images that withstand every attack of the suite, mean over classes, %",
    "autoattack_kind": _AUTOATTACK,
    "autoattack_balanced": "share of images that withstand AutoAttack alone, mean over classes, %",
    "union_tail": "worst case over the third of the classes with the fewest training images, %",
    "union_worst_tenth": "worst case over the tenth of the classes where it is lowest, %",
    "clean_balanced": "share of images classified correctly without an attack, mean over classes, %",
    "clean_head": "clean accuracy over the third of the classes with the most training images, %",
    "clean_medium": "clean accuracy over the middle third of the classes, %",
    "clean_tail": "clean accuracy over the third of the classes with the fewest training images, %",
    "union_head": "worst case over the third of the classes with the most training images, %",
    "union_medium": "worst case over the middle third of the classes, %",
    "union_head_tail_gap": "worst case, head minus tail, points; no measure of quality: robust to nothing is 0",
    "union_tail_of_reference": "union_tail in per cent of what plain AT on as many images in equal classes (profile "
    "balanced) reaches on the same classes; empty: not run",
    "seeds": _SEEDS,
    "interval_low": "lower end of the 95 % interval of union_balanced, %",
    "interval_high": "upper end of the 95 % interval of union_balanced, %",
    "interval_kind": _INTERVAL,
    "union_balanced_std": f"union_balanced, {_STD}",
    "autoattack_balanced_std": f"autoattack_balanced, {_STD}",
    "union_tail_std": f"union_tail, {_STD}",
    "clean_balanced_std": f"clean_balanced, {_STD}",
    "training_forwards": "images passed forward through the network in training, mean over seeds",
    "training_backwards": "images passed backward through the network in training, mean over seeds",
    "training_seconds": "seconds of training on the machine that ran it, mean over seeds; machines differ",
    "gpu_hours": "hours of training on one GPU, mean over the seeds that ran on one; empty: none did",
    "cpu_hours": "hours of training times CPU threads, mean over the seeds that ran on a CPU; empty: none did",
    "device": "what it ran on",
    "optimizer_steps": "optimiser steps, those of a run it builds on included",
    "training_epsilon": "radius of the attack in training, pixel scale 0 to 1",
    "trials": "configurations tried on a validation split before this one",
    "verification": "claimed, re-evaluated or retrained, the lowest of its runs; empty: not on a public board",
    "flags": "what a reader must know before comparing; each flag is explained",
    "records": "identities of the records the line is made from, one per seed",
}
_METRICS = {
    "overall": "accuracy over all test images, %",
    "balanced": "accuracy, mean over classes, %",
    "head": "accuracy over the third of the classes with the most training images, %",
    "medium": "accuracy over the middle third of the classes, %",
    "tail": "accuracy over the third of the classes with the fewest training images, %",
    "worst_class": "accuracy of the class where it is lowest, %",
    "worst_tenth": "accuracy over the tenth of the classes where it is lowest, %",
    "head_tail_gap": "head minus tail, points; no measure of quality",
}
GROUPS = {
    **_BOARD,
    "method": _METHOD,
    "attack": "clean, an attack of the suite, or union: the worst case of all, image by image",
    "seeds": _SEEDS,
    "interval_kind": _INTERVAL,
    **_METRICS,
    **_with_spread(_METRICS, ("worst_class", "worst_tenth", "head_tail_gap")),
}
_SHARES = {
    "clean": "share of the class classified correctly without an attack, %",
    "autoattack": "share of the class that withstands AutoAttack alone, %",
    "union": "share of the class that withstands every attack of the suite, %",
    "boundary_error": "share of the class that is correct without an attack and broken by one, %",
}
PER_CLASS = {
    **_BOARD,
    "method": _METHOD,
    "seeds": _SEEDS,
    "interval_kind": _INTERVAL,
    "autoattack_kind": _AUTOATTACK,
    "class": "label of the class in the data set",
    "rank": "place of the class by training images, 0 is the largest",
    "group": "head, medium or tail: thirds of the classes by training images; empty below 3 classes",
    "train_images": "training images of the class",
    "test_images": "test images of the class",
    **_SHARES,
    "natural_error": "share of the class misclassified without an attack, %",
    **_with_spread(_SHARES),
}
