"""``ltbench show``"""

from __future__ import annotations

from typing import Any

import click

from ltrobust_bench.cli.completion import names_of
from ltrobust_bench.cli.words import echo


@click.command(epilog="Example: ltbench show reat")
@click.argument("method", shell_complete=names_of("methods"))
def command(method: str) -> None:
    """A method's paper, options and recipe in both tracks, published numbers, deviations and quirks."""
    from ltrobust_bench.cards import card_of
    from ltrobust_bench.protocol import load_protocol
    from ltrobust_bench.protocol.load import MAIN
    from ltrobust_bench.protocol.resolve import SWITCHES, recipe_settings

    card = card_of(method)
    paper = card.paper
    echo(f"{card.title} ({card.slug}, card version {card.version}) - {card.group}")
    echo(card.summary)
    echo(f"\n{paper.authors}: {paper.title}. {paper.venue} {paper.year}.")
    for name, value in (("arXiv", paper.arxiv), ("page", paper.url), ("official code", paper.code)):
        if value:
            echo(f"{name}: {value}")
    if card.base is not None:
        does = {"start": "whose weights it starts from", "teacher": "which stays as it is and teaches it"}[
            card.base.role
        ]
        echo(f"\nBuilds on a finished run of {card.base.method}, {does}. {card.base.terms}")
    echo("\nOptions (--set NAME=VALUE):")
    if not card.options:
        echo("  none")
    for name, option in card.options.items():
        allowed = f" [{', '.join(map(str, option.choices))}]" if option.choices else ""
        echo(f"  {name} ({option.type}{allowed}): {'; '.join([option.help, *option.terms])}")
        echo(f"      fixed: {_value(option.fixed)}   paper: {_value(option.paper)}")
    echo(f"\nRecipe of protocol {MAIN} (fixed) and of the authors (paper).")
    echo(f"--set NAME=VALUE also takes: {', '.join(recipe_settings())}")
    ours, theirs = (card.stated_recipe(load_protocol(MAIN), track) for track in ("fixed", "paper"))
    for name in ours | theirs:
        values = [_value(of.get(name)) for of in (ours, theirs)]
        mark = "" if values[0] == values[1] else "  *"
        echo(f"  {name:24} {values[0]:18} {values[1]}{mark}")
    for name, (words, _) in SWITCHES.items():
        echo(f"  switch {name}: {' or '.join(words)}")
    echo(f"  paper: {card.recipe_source}")
    echo("\nPublished numbers (never ranked):")
    for claim in card.claims:
        ratio = claim.imbalance_ratio and f"IR {claim.imbalance_ratio:g}"
        where = ", ".join(part for part in (claim.dataset, ratio, claim.model) if part)
        form = f" ({claim.of})" if claim.of else ""
        echo(f"  {claim.value:g} {claim.metric}{form}: {where} [{claim.kind}]")
    for source in dict.fromkeys(claim.source for claim in card.claims):
        echo(f"  from {source}")
        for note in dict.fromkeys(claim.note for claim in card.claims if claim.source == source and claim.note):
            echo(f"      {note}")
    if card.claims_note:
        echo(f"  none: {card.claims_note}")
    for heading, lines in (("Deviations", card.deviations), ("Quirks of the official code", card.quirks)):
        echo(f"\n{heading}:")
        for line in lines or ["none"]:
            echo(f"  - {line}")
    echo(f"\nLicence: {card.licence_note}\n\nCite:\n{paper.bibtex.strip()}")


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    return "none" if value is None else str(value)
