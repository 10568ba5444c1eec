"""``ltbench show``"""

from __future__ import annotations

from typing import Any

import click


@click.command(epilog="Example: ltbench show reat")
@click.argument("method")
def command(method: str) -> None:
    """A method's paper, options in both tracks, official recipe, deviations and quirks."""
    from ltrobust_bench.cards import card_of
    from ltrobust_bench.plan import recipe_settings

    card = card_of(method)
    paper = card.paper
    click.echo(f"{card.title} ({card.slug}, card version {card.version}) - {card.group}")
    click.echo(card.summary)
    click.echo(f"\n{paper.authors}: {paper.title}. {paper.venue} {paper.year}.")
    for name, value in (("arXiv", paper.arxiv), ("page", paper.url), ("official code", paper.code)):
        if value:
            click.echo(f"{name}: {value}")
    click.echo("\nOptions (--set NAME=VALUE):")
    if not card.options:
        click.echo("  none")
    for name, option in card.options.items():
        allowed = f" [{', '.join(map(str, option.choices))}]" if option.choices else ""
        click.echo(f"  {name} ({option.type}{allowed}): {option.help}")
        click.echo(f"      fixed: {_value(option.fixed)}   paper: {_value(option.paper)}")
    click.echo(f"Recipe settings that --set also takes: {', '.join(recipe_settings())}")
    click.echo(f"\nThe authors' recipe (--track paper), over the protocol's: {card.recipe_source}")
    for name, value in _flat(card.paper_recipe()):
        click.echo(f"  {name} = {value}")
    for heading, lines in (("Deviations", card.deviations), ("Quirks of the official code", card.quirks)):
        click.echo(f"\n{heading}:")
        for line in lines or ["none"]:
            click.echo(f"  - {line}")
    click.echo(f"\nLicence: {card.licence_note}\n\nCite:\n{paper.bibtex.strip()}")


def _value(value: Any) -> str:
    return "none" if value is None else str(value)


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in tree.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return rows
