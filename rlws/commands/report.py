"""`rlws report DIR...`: runs on one page of HTML, to read and to pass on."""

import argparse
import pathlib
import shlex

from rlws.analysis.results import gather, grouped
from rlws.commands.arguments import add_directories, writing
from rlws.settings import SettingError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this verb."""
    add_directories(parser)
    parser.add_argument("--output", default="report.html", metavar="FILE", help="report.html")
    parser.add_argument("--no-videos", action="store_true", help="for a smaller page")


def run(args: argparse.Namespace) -> None:
    """Writes the page and says where it is."""
    output = pathlib.Path(args.output)
    if output.suffix.lower() not in (".html", ".htm"):
        raise SettingError(f"--output must end in .html, got {args.output!r}; try report.html")
    groups, notes = grouped(gather(args.directories))
    from rlws.analysis.report import report

    words = ["rlws", "report", *args.directories, "--output", args.output]
    command = shlex.join(words + ["--no-videos"] * args.no_videos)
    text = report(groups, notes, command, videos=not args.no_videos)
    with writing(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    for note in notes:
        print(note)
    print(f"report in {output} ({len(text) / 2**20:.1f} MB)")
