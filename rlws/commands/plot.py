"""`rlws plot DIR...`: learning curves of runs, laid over each other."""

import argparse
import datetime
import pathlib

from rlws.analysis.results import SCORE, column, gather, grouped
from rlws.analysis.statistics import interquartile_mean
from rlws.commands.arguments import add_directories, writing
from rlws.settings import SettingError

METRIC = "episode_return"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this verb."""
    add_directories(parser)
    parser.add_argument("--metric", default=METRIC, help=f"column of metrics.csv; {METRIC}")
    parser.add_argument(
        "--over", metavar="SETTING", help="draw the last value over this setting, not over steps"
    )
    parser.add_argument(
        "--output", metavar="FILE", help=".png, .svg or .pdf; results/plots/TIME.png"
    )


def run(args: argparse.Namespace) -> None:
    """Draws the figure and says where it is."""
    path = picture_path(args.output)
    if args.over:
        _over(args, path)
        return
    groups, notes = grouped(gather(args.directories))
    from rlws.analysis.curves import aligned, curves_figure, seeds

    curves = [
        aligned(group.label, [column(result, args.metric) for result in group.results])
        for group in groups
    ]
    names = dict.fromkeys(result.name for group in groups for result in group.results)
    title = ", ".join(names)
    figure = curves_figure(curves, args.metric, "" if title == curves[0].label else title)
    with writing(path) as temporary:
        figure.savefig(temporary)
    for note in notes:
        print(note)
    for curve in curves:
        end = f"{curve.middle[-1]:.4g} at {curve.steps[-1]:,.0f} steps"
        print(f"{curve.label}: {args.metric} {end} ({seeds(len(curve.values))})")
    print(f"figure in {path}")


def _over(args: argparse.Namespace, path: pathlib.Path) -> None:
    """Draws what runs came to over the values of a setting."""
    from rlws.analysis.settings import over, settings_figure

    metric = SCORE if args.metric == METRIC else args.metric
    lines = over(gather(args.directories), args.over, metric)
    figure = settings_figure(lines, args.over, metric)
    with writing(path) as temporary:
        figure.savefig(temporary)
    for label, points in lines.items():
        for value, scores in points.items():
            text = f"{args.over}={value}: {metric} {interquartile_mean(scores):.4g}"
            runs = f"{len(scores)} run{'s' * (len(scores) > 1)}"
            print(f"{f'{label}, ' if label else ''}{text} ({runs})")
    print(f"figure in {path}")


def picture_path(output: str | None) -> pathlib.Path:
    """Returns where a figure goes.

    Raises:
      SettingError: it is no name of a picture.
    """
    if output is None:
        return pathlib.Path("results", "plots", f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}.png")
    path = pathlib.Path(output)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise SettingError(f"--output must end in .png, .svg or .pdf, got {output!r}")
    return path
