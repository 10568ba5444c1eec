"""``results/claims.md``: verdicts, and the tables behind them. The same records give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ltrobust_bench.cards import card_of
from ltrobust_bench.records.schema import Record
from ltrobust_bench.report.aggregate import DECIMALS, on_terms
from ltrobust_bench.report.board import Board, Entry
from ltrobust_bench.report.claims.measure import SEEDS, Comparison, Finding
from ltrobust_bench.report.claims.size import SizeEffect, head_less_tail
from ltrobust_bench.report.tables import markdown_text
from ltrobust_bench.scores.groups import by_size, rank_groups

PER = {"all": "all classes", "head": "head", "medium": "medium", "tail": "tail"}
INTRODUCTION = f"""\
# What the papers claimed, on this board

Written by `ltbench report claims` from the records; nothing here is typed. Figures are points of accuracy, balanced
over classes, with a 95 % interval: the wider of the t interval over seeds and the paired one of images within a seed,
so that neither spread is left out. A claim is *confirmed* or *refuted* if its figure is resolved above or below zero
(McNemar's exact test, or a normal one where an image can count as other than -1, 0 or 1; every seed must show it;
Holm's correction over a claim's cases, in each group of classes by itself, and not over claims); a claim that
something changes nothing, if the interval lies within its margin, or the figure is resolved beyond that. What is said
of a gain is judged only where the gain itself is resolved above zero, and the larger p-value counts. Runs that nobody
has verified, and entries that may have misled their attacks, are left out. Everything else is *not resolved at this
scale*, and so is everything with fewer than {SEEDS} seeds: a small network, a short training and 100 test images of
each class do not show small effects. So a verdict is about this board. No paper is reproduced here; what they report
stands in `ltbench report published`.
"""


SIZE = "The tail is less robust because it has few images, and not only because its classes are harder."


def page(findings: Sequence[Finding], board: Board | None, sizes: Sequence[SizeEffect], permuted: Board | None) -> str:
    """The whole page."""
    title = f"Board: {board.title}." if board else "No run of this board is finished yet."
    parts = [INTRODUCTION, markdown_text(title), summary(findings, sizes), *map(section, findings)]
    if board is not None:
        parts += [decomposition(board), ranking(board), by_size_and_difficulty(board, permuted, sizes)]
    parts.append(used(findings, board, sizes, permuted))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts if part)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], right: int = 0) -> str:
    """A Markdown table; all columns from number ``right`` on are aligned to the right."""
    rule = ["---" if number < right else "---:" for number in range(len(head))]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (head, rule, *rows))


def summary(findings: Sequence[Finding], sizes: Sequence[SizeEffect]) -> str:
    """One line for each claim, the field's own the last."""
    rows = [
        [f"[{one.claim.id}](#{one.claim.id})", card_of(one.claim.method).title, one.claim.says, _verdicts(one)]
        for one in findings
    ]
    plain = next((one.verdict for one in sizes if one.label == "at"), "not measured yet")
    rows.append(["[size](#size-against-difficulty)", "all of them", SIZE, f"*{plain}*"])
    return _table(["", "paper", "claim", "verdict"], rows, right=4)


def _verdicts(one: Finding) -> str:
    if len(set(one.verdicts.values())) == 1:
        return f"*{next(iter(one.verdicts.values()))}*"
    return "; ".join(f"{PER[group]}: *{verdict}*" for group, verdict in one.verdicts.items())


def section(one: Finding) -> str:
    """A claim with its comparisons."""
    claim = one.claim
    rule = f"within ±{claim.margin:g} points" if claim.direction == "within" else "above 0"
    cases = f", for {'each' if claim.holds == 'every' else 'at least one'} of these" if claim.cases else ""
    supposed = f" Judged only where this is above 0, too, the gain: {claim.given.quantity}." if claim.given else ""
    head = [
        "compared",
        "classes",
        *(["gain"] if claim.given else []),
        "figure",
        "95 % interval",
        "p",
        "seeds",
        "verdict",
    ]
    rows = [_row(comparison, claim.given is not None) for comparison in one.comparisons]
    return (
        f"## {claim.id}\n\n{claim.says} Measured: {claim.quantity}; the claim says {rule}{cases}.{supposed} "
        f"Verdict: {_verdicts(one)}.\n\n" + _table(head, rows, right=2)
    )


def _row(one: Comparison, supposes: bool) -> list[str]:
    name = [markdown_text(" and ".join(one.case)) or "-", PER[one.group]]
    if not one.seeds:
        why = f", without {', '.join(map(markdown_text, one.missing))}" if one.missing else ", no seed in common"
        return [*name, *["-"] * supposes, "-", "-", "-", "0", f"{one.verdict}{why}"]
    gain = [f"{one.given.figure:+.1f} ({_interval(one.given)})"] if one.given is not None else []
    return [*name, *gain, f"{one.figure:+.1f}", _interval(one), f"{one.p_value:.2g}", str(len(one.seeds)), one.verdict]


def _interval(one: Comparison) -> str:
    low, high = one.interval
    return f"{low:+.1f} to {high:+.1f}"


def decomposition(board: Board) -> str:
    """Robust error = natural error + boundary error, per group of classes."""
    groups = list(rank_groups(board.key.train_counts))
    rows = []
    for entry in board.entries:
        cells = []
        for group in groups:
            clean, robust = (float(entry.percent(name, group)) for name in ("clean", "union"))
            cells.append(f"{100 - clean:.1f} + {clean - robust:.1f} = {100 - robust:.1f}")
        rows.append([markdown_text(entry.label), str(len(entry.runs)), *cells])
    return (
        "## Natural error + boundary error = robust error\n\nIn per cent, mean over seeds, worst case over the suite: "
        "images that are wrong when clean, and images that are right when clean and that some attack breaks; each "
        "number is rounded by itself.\n\n" + _table(["entry", "seeds", *groups], rows, right=1)
    )


def ranking(board: Board) -> str:
    """Where entries stand under PGD-20 and in the worst case."""
    competing = [entry for entry in board.entries if on_terms(entry)]
    values = {name: [float(e.percent(name, "balanced")) for e in competing] for name in ("pgd-20", "union")}
    place = {name: _places(numbers) for name, numbers in values.items()}
    rows = [
        [
            markdown_text(entry.label), str(len(entry.runs)), f"{values['pgd-20'][i]:.1f}", f"{values['union'][i]:.1f}",
            f"{values['pgd-20'][i] - values['union'][i]:.1f}", str(place["pgd-20"][i]), str(place["union"][i]),
            f"{place['pgd-20'][i] - place['union'][i]:+d}",
        ]
        for i, entry in enumerate(competing)
    ]  # fmt: skip
    head = ["entry", "seeds", "PGD-20", "worst case", "overstated", "place by PGD-20", "place by worst case", "moves"]
    return (
        "## Places under PGD-20 and in the worst case\n\nOf mean accuracies (per cent), not ranks: neighbours may not "
        "be told apart. What falls has a minus; whether PGD-20 overstates it more than plain adversarial training is "
        "tested under [robal-fake](#robal-fake).\n\n" + _table(head, rows, right=1)
    )


def _places(values: Sequence[float]) -> list[int]:
    """Place of each, 1 for the highest; equal ones share theirs, whatever order their seeds were added up in."""
    rounded = [round(value, DECIMALS) for value in values]
    return [1 + sum(other > value for other in rounded) for value in rounded]


def by_size_and_difficulty(board: Board, permuted: Board | None, sizes: Sequence[SizeEffect]) -> str:
    """What a class's size does, and what its difficulty does."""
    text = "## Size against difficulty\n\n"
    reference = board.reference
    if reference is None and not sizes:
        return text + "Not measured yet: neither the balanced reference nor the permuted order has a run.\n"
    text += (
        "Plain adversarial training on as many images in equal classes is each class's own ceiling: how its classes "
        "differ is difficulty. In the permuted order the sizes are the same and their order is another, so that a "
        "class keeps its difficulty and changes its size. Worst-case accuracy, per cent, mean over seeds.\n\n"
    )
    text += _table(*_class_table(board, permuted, reference, sizes), right=1)
    if reference is not None:
        ceiling = reference.percent("union", "per_class")
        text += (
            f"\nBetween the head's classes and the tail's the reference, where all are of one size, has "
            f"{head_less_tail(ceiling, list(board.key.train_counts)):+.1f} points: difficulty alone.\n"
        )
    if not sizes:
        return text + "\nThe permuted order has no run yet.\n"
    head = ["entry", "seeds", "head less tail", "permuted", "points per doubling of a class", "verdict"]
    return text + "\n" + _table(head, [_size_row(one) for one in sizes], right=1)


def _size_row(one: SizeEffect) -> list[str]:
    low, high = one.slope - one.half, one.slope + one.half
    slope = f"{one.slope:+.1f} ({low:+.1f} to {high:+.1f})"
    return [markdown_text(one.label), str(len(one.seeds)), *(f"{gap:+.1f}" for gap in one.gaps), slope, one.verdict]


def _class_table(
    board: Board, permuted: Board | None, reference: Entry | None, sizes: Sequence[SizeEffect]
) -> tuple[list[str], list[list[str]]]:
    head, columns = ["class"], [[str(c) for c in range(len(board.key.train_counts))]]
    if reference is not None:
        head.append("ceiling")
        columns.append([f"{value:.1f}" for value in reference.percent("union", "per_class")])
    orders = [("images", board, "label_order"), ("images, permuted", permuted, "permuted")]
    for title, one, field in orders:
        if one is None:
            continue
        head += [title, *(markdown_text(effect.label) for effect in sizes)]
        columns.append([str(count) for count in one.key.train_counts])
        columns += [[f"{value:.1f}" for value in getattr(effect, field)] for effect in sizes]
    order = by_size(board.key.train_counts)
    return head, [[column[c] for column in columns] for c in order]


def used(findings: Sequence[Finding], board: Board | None, sizes: Sequence[SizeEffect], permuted: Board | None) -> str:
    """The runs behind the verdicts, those of both orders and the reference's."""
    runs: dict[str, Sequence[Record]] = {}
    for one in findings:
        runs |= one.used
    measured = {effect.label for effect in sizes}
    for title, other in (("{}", board), ("{}, permuted", permuted)):
        runs |= (
            {title.format(entry.label): entry.runs for entry in other.entries if entry.label in measured}
            if other
            else {}
        )
    if board is not None and board.reference is not None:
        runs[f"{board.reference.label}, balanced"] = board.reference.runs
    if not runs:
        return ""
    rows = [
        [markdown_text(label), ", ".join(f"s{record.run.seed} `{record.run.key()[:8]}`" for record in runs[label])]
        for label in sorted(runs)
    ]
    return "## Entries used\n\nSeed and run key, whose first eight digits end a record's name.\n\n" + _table(
        ["entry", "runs"], rows, right=2
    )


def unmeasured(findings: Sequence[Finding]) -> Mapping[str, list[str]]:
    """Entries that claims still wait for, by claim."""
    return {
        one.claim.id: sorted({label for comparison in one.comparisons for label in comparison.missing})
        for one in findings
        if any(comparison.missing for comparison in one.comparisons)
    }
