"""The static page: one folder of HTML that opens from disk, without a network. Importing this is light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ltrobust_bench.report.aggregate import Board


@dataclass(frozen=True)
class SiteResult:
    """What :func:`build` wrote.

    Attributes:
        index: the page to open.
        files: number of files in the folder.
        boards: the boards shown.
        messages: what was left out or looks odd, damaged records first.
        damaged: number of files that are no valid record.
    """

    index: Path
    files: int
    boards: list[Board]
    messages: list[str]
    damaged: int


def build(
    records_dirs: Sequence[Path | str] = (Path("results/records"),),
    output: Path | str = Path("site"),
    results: Sequence[Path] = (),
    repository: str | None = None,
) -> SiteResult:
    """Write the static page of the records below some folders.

    The folder is replaced as a whole, so that no page of a record that is gone stays behind. The same records give the
    same bytes.

    Args:
        records_dirs: folders (or single files) to read records from.
        output: folder to write; it must be new, empty, or a page written before.
        results: folders whose retractions and verifications hold besides those that lie beside the records; the first
            with published numbers gives the page of them.
        repository: address of the repository that holds the records, which the page About names.

    Raises:
        UsageError: if there is no readable record, or ``output`` holds something else or cannot be written.
    """
    from ltrobust_bench.report import aggregate, read_records
    from ltrobust_bench.report.published import read_published
    from ltrobust_bench.report.site import folder, pages

    output = Path(output)
    folder.check(output)
    records, problems = read_records([Path(name) for name in records_dirs], results)
    boards = aggregate.boards(records)
    numbers, wrong = next(
        (read_published(p) for r in results if any((p := Path(r) / "published").glob("*.csv"))), ([], [])
    )
    files = pages.render(boards, numbers, repository)
    folder.replace(output, files)
    messages = problems + [message for board in boards for message in board.messages] + [str(one) for one in wrong]
    return SiteResult(output / "index.html", len(files), boards, messages, len(problems))
