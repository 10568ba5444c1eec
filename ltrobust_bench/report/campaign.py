"""How far a campaign is: a plan's runs beside the records of those that are done. Needs no data and no run folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from ltrobust_bench.cards import methods
from ltrobust_bench.data.registry import dataset_spec, protocol_for
from ltrobust_bench.numbers import number
from ltrobust_bench.plan.make import usual_model
from ltrobust_bench.plan.request import Request
from ltrobust_bench.plan.run import CUTS
from ltrobust_bench.protocol import Protocol
from ltrobust_bench.records.schema import Record
from ltrobust_bench.report.aggregate import method_label, request_label
from ltrobust_bench.report.tables import markdown_text


@dataclass(frozen=True)
class Planned:
    """A run of a plan.

    Attributes:
        request: what the plan asks for.
        label: its entry's name on a board.
        record: of the run, if it is done.
    """

    request: Request
    label: str
    record: Record | None

    @property
    def training(self) -> float:
        """Minutes that its own training took, without that of the run it builds on; 0: not done."""
        if self.record is None:
            return 0.0
        cost = self.record.cost
        return (cost.training.seconds - (cost.base.seconds if cost.base else 0.0)) / 60

    @property
    def evaluation(self) -> float:
        """Minutes that its evaluation took; 0: not done."""
        return self.record.cost.evaluation.seconds / 60 if self.record else 0.0

    @property
    def board(self) -> str:
        """Data set and what is unusual about the split."""
        asked = self.request
        ratio = "" if asked.imbalance_ratio is None else f", ratio {asked.imbalance_ratio:g}"
        return f"{asked.dataset}{ratio}" + (f", {asked.profile}" if asked.profile else "")


def planned_runs(requests: Iterable[Request], records: Iterable[Record]) -> list[Planned]:
    """The runs of a plan in its order. A record belongs to one if terms, network, entry and seed agree, and its
    protocol and its method's card are the installed ones. Of several the earliest counts, as on a board."""
    newest_first = sorted(records, key=lambda record: record.environment.created, reverse=True)
    done = {_of_record(record): record for record in newest_first}
    return [
        Planned(request, label, done.get(_of_request(request, label)))
        for request in requests
        for label in [request_label(request)]
    ]


def _of_request(request: Request, label: str) -> tuple[object, ...]:
    protocol = protocol_for(request.dataset, request.protocol)
    terms = protocol.terms(request.dataset)
    return (
        protocol.digest(request.dataset), request.dataset, request.track,
        request.imbalance_ratio or terms.imbalance_ratio, request.profile or terms.profile, label, request.seed,
        methods.get(request.method).card.version, request.model or _usual_model(request, protocol),
        *(getattr(request, name) for name in CUTS),
    )  # fmt: skip


def _usual_model(request: Request, protocol: Protocol) -> str:
    """The network of a request that names none: that of the run that it builds on, if it does."""
    card, terms = methods.get(request.method).card, protocol.terms(request.dataset)
    while card.base is not None:
        card = methods.get(card.base.method).card
    recipe = card.resolve_recipe(protocol, request.track, number(terms.epsilon))
    return usual_model(recipe, terms, dataset_spec(request.dataset).shape[-1])


def _of_record(record: Record) -> tuple[object, ...]:
    run = record.run
    return (
        run.protocol_digest, run.dataset, run.track, run.imbalance_ratio, run.profile, method_label(run), run.seed,
        run.card_version, run.model,
        *(getattr(run, name) for name in CUTS),
    )  # fmt: skip


def campaign_page(name: str, runs: Sequence[Planned]) -> str:
    """Markdown: what is done, by whom and how long it took, and what remains.

    Args:
        name: of the plan, as it is typed.
    """
    done = [run for run in runs if run.record is not None]
    hours = sum(run.training + run.evaluation for run in done) / 60
    parts = [
        f"# How far the campaign is\n\nWritten by `ltbench report campaign {name}` from the plan and the records.\n\n"
        f"{len(done)} of {len(runs)} runs are done, in {hours:.1f} hours of computing. {_remains(runs)}\n"
    ]
    if done:
        parts.append(_done(done))
    left = [run for run in runs if run.record is None]
    if left:
        parts.append(_left(left))
    return "\n".join(parts)


def _remains(runs: Sequence[Planned]) -> str:
    """What the rest will take, by what runs on the same data took."""
    hours, unknown = 0.0, 0
    for board in dict.fromkeys(run.board for run in runs):
        own = [run for run in runs if run.board == board]
        took = [run.training + run.evaluation for run in own if run.record is not None]
        left = len(own) - len(took)
        if took:
            hours += left * fmean(took) / 60
        else:
            unknown += left
    if not hours and not unknown:
        return "Nothing remains."
    known = f"By their mean the rest takes about {hours:.0f} hours" if hours else "What the rest takes is not known"
    if not unknown:
        return f"{known}."
    return f"{known}{'; ' if hours else ', '}{unknown} runs are on boards that have none done."


def _done(done: Sequence[Planned]) -> str:
    head = "| run | data | seed | training, min | evaluation, min | machine | finished | record |\n"
    rule = "| --- | --- | ---: | ---: | ---: | --- | --- | --- |\n"
    lines = []
    for run in done:
        assert run.record is not None
        where = run.record.environment
        threads = "" if where.threads == 1 else f", {where.threads} threads"
        cells = [
            markdown_text(run.label), run.board, str(run.request.seed), f"{run.training:.1f}", f"{run.evaluation:.1f}",
            markdown_text(where.device) + threads, where.created.replace("T", " ").removesuffix("Z"),
            f"`{run.record.id}`",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |\n")
    told = "In the plan's order; times are wall time of the job, on machines that did other work beside it."
    return f"## Done\n\n{told}\n\n{head}{rule}{''.join(lines)}"


def _left(left: Sequence[Planned]) -> str:
    lines = [f"| {markdown_text(label)} | {board} | {', '.join(seeds)} |\n" for label, board, seeds in _by_entry(left)]
    return "## What remains\n\nIn the plan's order.\n\n| run | data | seeds |\n| --- | --- | --- |\n" + "".join(lines)


def _by_entry(left: Sequence[Planned]) -> Iterator[tuple[str, str, list[str]]]:
    order = list(dict.fromkeys((run.label, run.board) for run in left))
    ordered = sorted(left, key=lambda run: order.index((run.label, run.board)))
    for (label, board), runs in groupby(ordered, key=lambda run: (run.label, run.board)):
        yield label, board, [str(run.request.seed) for run in runs]
