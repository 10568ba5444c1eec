"""``ltbench report site``"""

from __future__ import annotations

from pathlib import Path

import click

from ltrobust_bench.cli.shared import PATH, console, records_option, results_dir_option


@click.command(name="site", epilog="Example: ltbench report site --output site, then open site/index.html")
@results_dir_option
@records_option
@click.option(
    "--output",
    "-o",
    type=PATH,
    default=Path("site"),
    show_default=True,
    help="Folder to write; an older page there is replaced.",
)
@click.option(
    "--repository", metavar="URL", help="Of the repository that holds the records; the page About leads there."
)
@click.pass_context
def command(
    context: click.Context, results_dir: Path, records_dirs: tuple[Path, ...], output: Path, repository: str | None
) -> None:
    """Write the leaderboard as web pages: a folder that opens from disk and needs no network.

    Leaves with code 1 if a file was no valid record; the pages are built from the others.
    """
    from ltrobust_bench.errors import UsageError
    from ltrobust_bench.report.site import build

    if repository and not repository.startswith(("https://", "http://")):
        raise UsageError(f"--repository takes a link that a reader can follow, https://..., not {repository!r}.")
    result = build(records_dirs or (results_dir / "records",), output, [results_dir], repository)
    out = console()
    for message in result.messages:
        out.print(f"note: {message}", style="yellow")
    out.print(f"wrote {result.files} files; open {result.index}")
    context.exit(1 if result.damaged else 0)
