"""Names that a shell completes: ``eval "$(_LTBENCH_COMPLETE=bash_source ltbench)"`` (or zsh_source, fish_source)."""

from __future__ import annotations

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def names_of(kind: str) -> Completer:
    """Completes names of ``methods``, ``plugins``, ``datasets``, ``models``, ``attacks`` or ``protocols``."""

    def complete(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in _names(kind) if name.startswith(typed.lower())]

    return complete


def _names(kind: str) -> list[str]:
    if kind in ("methods", "plugins"):
        from ltrobust_bench import cards

        return getattr(cards, kind).names()  # type: ignore[no-any-return]
    if kind == "datasets":
        from ltrobust_bench.data.registry import datasets

        return [*datasets.names(), "folder:", "lists:"]
    if kind == "models":
        from ltrobust_bench.models.registry import models

        return models.names()
    if kind == "attacks":
        from ltrobust_bench.attacks.registry import attacks
        from ltrobust_bench.protocol import load_protocol, protocols

        stated = {a.name for name in protocols.names() for a in load_protocol(name).evaluation.attacks}
        return sorted({*stated, *attacks.names()})
    from ltrobust_bench.protocol import protocols

    return protocols.names()
