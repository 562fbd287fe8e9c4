"""How the doctor's report looks."""

from rich.console import Console
from rich.table import Table

from rlws.diagnose.doctor import Report

COLOURS = {"pass": "green", "fail": "bold red", "note": "yellow", "skip": "dim"}


def show(report: Report, console: Console | None = None) -> None:
    """Prints the table of a report, and then what failed first, with where to look."""
    console = console or Console()
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in ("check", "isolates", "expected", "got", ""):
        table.add_column(column, no_wrap=column in ("check", ""), overflow="fold")
    for check in report.checks:
        colour = COLOURS[check.verdict]
        style = "dim" if check.verdict == "skip" else ""
        verdict = f"[{colour}]{check.verdict}[/]"
        cells = (check.name, check.isolates, check.expected, check.got)
        table.add_row(*map(_plain, cells), verdict, style=style)
    console.print(table)
    counts = {v: sum(c.verdict == v for c in report.checks) for v in COLOURS}
    for check in (*report.failures[:1], *(c for c in report.checks if c.verdict == "note")):
        colour = COLOURS[check.verdict]
        text = _plain(f"{check.name}: {check.advice or check.isolates}")
        console.print(f"\n[{colour}]{check.verdict}[/] {text}")
        console.print(f"     look at {_plain(check.component)}", highlight=False)
        if check.verdict == "fail" and report.consequences:
            names = _plain(", ".join(c.name for c in report.consequences))
            console.print(f"     may follow from it: {names}", style="dim", highlight=False)
    total = ", ".join(f"{n} {v}" for v, n in counts.items() if n)
    health = "[green]healthy[/]" if report.healthy else "[bold red]not healthy[/]"
    console.print(
        f"\n{_plain(report.agent)}: {health} ({total}) in {report.seconds:.0f} s", highlight=False
    )


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
