"""What the demo shows: bars on a terminal, plain lines elsewhere, and the table at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn
from rich.table import Table

from mirror.demo.client import Pulled, Watch
from mirror.demo.registry import Cost
from mirror.oci.digest import Digest


class Chapter(NamedTuple):
    """One pull of the story; `cost` is None when there was no registry left to ask."""

    title: str
    pulled: Pulled
    cost: Cost | None


class Screen:
    """Writes to `console`."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """Show one line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def fail(self, text: str) -> None:
        """Show why the story is not true."""
        self._console.print(f"The demo failed: {text}", style="red", highlight=False, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def watching(self) -> Iterator[Watch]:
        """Show how far each blob is, for as long as the context lasts."""
        if not self._console.is_terminal:
            yield lambda _digest, _received, _size: None
            return
        columns = (TextColumn("  {task.description}"), BarColumn(), DownloadColumn(binary_units=True))
        with Progress(*columns, console=self._console) as progress:
            bars: dict[Digest, TaskID] = {}

            def watch(digest: Digest, received: int, size: int) -> None:
                if digest not in bars:
                    bars[digest] = progress.add_task(f"{digest[:19]}…", total=size)
                progress.update(bars[digest], completed=received)

            yield watch

    def tell(self, chapter: Chapter) -> None:
        """Show one finished pull in a line."""
        pulled = chapter.pulled
        self.say(
            f"   {_mebibytes(pulled.size)} in {pulled.seconds:.2f} s, all {pulled.digests} digests verified; "
            f"the tag: {pulled.cache_status}"
        )

    def sum_up(self, chapters: list[Chapter]) -> None:
        """Show what each pull cost the registry."""
        table = Table(title="What each pull cost the registry")
        table.add_column("pull")
        for column in ("time", "pulled", "requests", "bytes sent"):
            table.add_column(column, justify="right")
        for title, pulled, cost in chapters:
            asked = ("-", "-") if cost is None else (str(cost.requests), _mebibytes(cost.sent))
            table.add_row(title, f"{pulled.seconds:.2f} s", _mebibytes(pulled.size), *asked)
        self._console.print(table)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
