"""The run in the terminal: a live line for people, plain lines for logs."""

from collections.abc import Mapping
from typing import Any

import rich.box
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlws.tracking.progress import Progress, entry, short
from rlws.tracking.sink import Row, Run, Sink
from rlws.tracking.stderr import soften

_STYLES = {
    "name": "bold",
    "percent": "bold",
    "return": "bold cyan",
    "left": "dim",
    "workers": "dim",
}
# In turn, where there is no room.
_DROPPED = ("", "workers", "episodes", "name", "speed", "left", "return", "steps")
_PLAIN_LINES = 20  # a run, when stdout is not a terminal


class Terminal(Sink):
    """Shows the run on stdout: a live line on a terminal and in a notebook, else plain ones.

    Of those there is one every 5 % of the budget.

    Notes appear above the live line; at the end comes a table of the summary with the results
    directory. `quiet` leaves only that table.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None):
        soften()
        self._quiet = quiet
        self._console = console or Console(highlight=False)
        self._live: Live | None = None
        self._shown = 0  # plain lines so far
        self._open = False  # whether a line of a notebook is, that may be written over

    def start(self, run: Run) -> None:
        """Prints what runs and where to, and starts the live line."""
        self._progress = Progress(run)
        self.note(f"{run.name}: {run.budget:,} {run.unit}, results in {short(run.directory)}")
        if self._console.is_interactive and not self._quiet:
            # Twice a second keeps the clock alive and takes no noticeable time from the run.
            line = lambda: live_line(self._progress, self._console.width)
            self._live = Live(get_renderable=line, console=self._console, refresh_per_second=2)
            self._live.start()

    def log(self, row: Row) -> None:
        """Updates the line."""
        self._progress.update(row)
        due = int(self._progress.fraction * _PLAIN_LINES)
        if self._live:
            self._live.refresh()
        elif self._console.is_jupyter and not self._quiet:
            # A notebook writes over a line that begins anew; a live one would need its widgets.
            print("\r" + self._line(), end="", file=self._console.file, flush=True)
            self._open = True
        elif due > self._shown:
            self._shown = due
            self.note(self._line())

    def _line(self) -> str:
        return "   ".join(self._progress.fields().values())

    def note(self, text: str) -> None:
        """Prints `text` above the line."""
        if not self._quiet:
            self._print(text)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Stops the live line and prints the summary."""
        if self._live:
            self._live.stop()
        if "ended_by" in summary and not summary.get("steps"):
            return  # nothing was done, and the error says why
        run = self._progress.run
        entries = {name: entry(name, value) for name, value in summary.items()}
        entries["results"] = short(run.directory)
        if self._console.is_interactive:
            self._console.print(_panel(run.name, entries))
        else:
            width = max(map(len, entries)) + 2
            indented = "\n" + " " * width
            lines = (f"{k:<{width}}{v.replace(chr(10), indented)}" for k, v in entries.items())
            self._print("\n".join(lines))

    def _print(self, text: str) -> None:
        if self._console.is_interactive:
            self._console.print(Text(text))
        else:
            if self._open:  # a note takes the place of the line, which is written again below it
                text, self._open = f"\r{text:<{len(self._line())}}", False
            # Not Console.print: it wraps at 80, and ends the program when the pipe is closed.
            print(text, file=self._console.file, flush=True)


def live_line(progress: Progress, width: int) -> Table:
    """Returns the fields that fit into the width, and the bar in the room left."""
    fields = {"name": progress.run.name, "bar": "", **progress.fields()}
    # 2 columns stay free: a ^C echoed at the right edge would wrap and leave a second line.
    for dropped in _DROPPED:
        fields.pop(dropped, None)
        room = width - sum(len(text) + 2 for text in fields.values())
        if room >= 6:
            break
    length, done = max(1, min(40, room)), progress.fraction
    bar = ProgressBar(1.0, done, length, complete_style="cyan", finished_style="green")
    texts = {key: Text(text, _STYLES.get(key, "")) for key, text in fields.items()}
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_row(*(texts | {"bar": bar}).values())
    return line


def _panel(title: str, entries: Mapping[str, str]) -> Panel:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in entries.items():
        grid.add_row(name.replace("_", " "), Text(text))
    heading = Text(title, "bold")
    return Panel(grid, title=heading, title_align="left", box=rich.box.ROUNDED, expand=False)
