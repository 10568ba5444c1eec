"""``ltbench list``"""

from __future__ import annotations

import click

from ltrobust_bench.cli.words import echo, in_words


@click.command(epilog="Example: ltbench list methods")
@click.argument("kind", type=click.Choice(["methods", "datasets", "models", "attacks", "protocols", "weights"]))
@click.option("--json", "as_json", is_flag=True, help="For programs: name, group and help of each.")
def command(kind: str, as_json: bool) -> None:
    """What there is, one line each; methods by group, and what other packages registered under their names."""
    from itertools import groupby

    lines = sorted(_lines(kind))
    if as_json:
        import json

        echo(json.dumps([{"name": n, "group": g, "help": h} for g, n, h in lines], indent=1))
        return
    for group, members in groupby(lines, key=lambda line: line[0]):
        if group:
            echo(f"{group}:")
        for _, name, text in members:
            echo(in_words(f"{'  ' if group else ''}{name:<18} {text}".rstrip(), indent=21))


def _lines(kind: str) -> list[tuple[str, str, str]]:
    """(group, name, help) of each entry; loads cards and protocols, never torch."""
    if kind == "methods":
        from ltrobust_bench.cards import methods, plugins

        return [(e.group, e.name, f"{e.help} ({_venue(e.name)})") for e in (*methods, *plugins)]
    if kind == "datasets":
        from ltrobust_bench.data.registry import FOLDER_HELP, LISTS_HELP, datasets

        return [
            ("", "folder:PATH[@SIZE]", FOLDER_HELP),
            ("", "lists:TRAIN,TEST[@SIZE]", LISTS_HELP),
            *((e.group, e.name, datasets.get(e.name).help) for e in datasets),
        ]
    if kind == "models":
        from ltrobust_bench.models.registry import models

        return [
            *((e.group, e.name, e.help or e.origin) for e in models),
            (
                "",
                "timm:NAME",
                "any network of timm (an extra); transformers with small patches for small images",
            ),
            ("", "torchvision:NAME", "any classifier of torchvision"),
        ]
    if kind == "attacks":
        from ltrobust_bench.attacks.registry import attacks

        return [("", e.name, e.help) for e in attacks]
    if kind == "weights":
        from ltrobust_bench.records.weights import folders, read_index

        return [("", name, one.record) for folder in folders() for name, one in read_index(folder).items()]
    from ltrobust_bench.protocol import load_protocol, protocols

    return [("", n, f"{load_protocol(n).title} [{load_protocol(n).status}]") for n in protocols.names()]


def _venue(name: str) -> str:
    from ltrobust_bench.cards import card_of

    paper = card_of(name).paper
    return f"{paper.venue} {paper.year}"
