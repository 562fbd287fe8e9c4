"""The report of some runs: one page of HTML, complete in itself.

It is laid out in report.html.jinja beside this module: nothing is fetched, nothing is executed.
"""

import base64
import contextlib
import datetime
import html
import io
import json
import pathlib
import platform
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rlws.analysis.results import SCORE, Group, Result
from rlws.analysis.statistics import interquartile_mean, interval
from rlws.runs import folders
from rlws.runs.differences import shown, shown_type
from rlws.tracking.progress import duration, number, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAINING = "training_return_last_100"
CURVES = ("episode_return", SCORE)


def report(groups: Sequence[Group], notes: Sequence[str], command: str, videos: bool = True) -> str:
    """Returns the page on some groups of runs.

    Args:
      groups: the runs.
      notes: for the reader.
      command: that makes the page again.
      videos: whether films are put in; they make the page large.
    """
    import jinja2

    results = [result for group in groups for result in group.results]
    now = datetime.datetime.now().astimezone()
    layout = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return layout.get_template("report.html.jinja").render(
        names=", ".join(dict.fromkeys(result.name for result in results)),
        environments=", ".join(dict.fromkeys(result.environment for result in results)),
        labels=[group.label for group in groups],
        outcome=[_outcome(group) for group in groups],
        several_seeds=any(len(group.results) > 1 for group in groups),
        notes=notes,
        warnings=[*_warnings(results)],
        figures=[*_figures(groups)],
        runs=[_run(result) for result in results],
        videos=[*_videos(results)] if videos else [],
        settings=[*_settings(groups)],
        made=f"{now:%Y-%m-%d %H:%M %Z}, on {platform.system()} {platform.machine()}",
        command=command,
        versions=[*_versions(results)],
    )


def _outcome(group: Group) -> tuple[str, ...]:
    scores, training = group.numbers(SCORE), group.numbers(TRAINING)
    ends = "{:.4g} to {:.4g}".format(*interval(scores)) if len(scores) > 1 else "-"
    return group.label, str(len(group.results)), _middle(scores), ends, _middle(training)


def _middle(scores: np.ndarray) -> str:
    return f"{interquartile_mean(scores):.4g}" if len(scores) else "-"


def _warnings(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        texts = [*result.summary.get("warnings", []), *result.summary.get("sinks_failed", [])]
        if result.state != "finished":
            texts = [result.state, *texts]
        where = f"{short(result.directory)}: " if len(results) > 1 else ""
        yield from (f"{where}{text}" for text in texts)


def _figures(groups: Sequence[Group]) -> Iterator[tuple[str, str]]:
    """Yields figures as elements, each with what stands below it."""
    from rlws.analysis.curves import curve_of, curves_figure
    from rlws.tracking.figures import run_figures

    if len(groups) == 1 and len(groups[0].results) == 1:
        for name, figure in run_figures(groups[0].results[0].columns()).items():
            yield _svg(figure, name, f"{name} over environment steps"), ""
        return
    for metric in CURVES:
        found = (curve_of(group.label, group.results, metric) for group in groups)
        curves = [curve for curve in found if curve]
        if any(curve.steps[0] < curve.steps[-1] for curve in curves):
            caption = "Lines: interquartile means over seeds; bands: their 95 % intervals."
            yield _svg(curves_figure(curves, metric), metric, f"{metric} over steps"), caption


def _svg(figure: "Figure", name: str, description: str) -> str:
    """Returns a figure as an element; text in the colour of the page around it.

    Args:
      figure: of matplotlib.
      name: sets its ids apart from those of other figures on the page.
      description: for those who do not see it.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", text)
    label = html.escape(description)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _run(result: Result) -> tuple[str, ...]:
    counts = [number(result.number(name)) for name in ("steps", "episodes", "updates")]
    seconds = result.number("seconds")
    time = duration(seconds) if np.isfinite(seconds) else "-"
    mean, deviation = result.number(SCORE), result.number("evaluation_return_std")
    score = f"{mean:.4g}" if np.isfinite(mean) else "-"
    if np.isfinite(deviation):
        score += f" ± {deviation:.3g}"
    return short(result.directory), str(result.seed), *counts, time, score, result.state


def _videos(results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    """Yields names of films, and addresses that hold them."""
    for result in results:
        for path in sorted((result.directory / "videos").glob("*.mp4")):
            name = path.stem if len(results) == 1 else f"{short(result.directory)} {path.stem}"
            content = base64.b64encode(path.read_bytes()).decode()
            yield name.replace("_", " "), f"data:video/mp4;base64,{content}"


class _Setting(NamedTuple):
    name: str
    values: list[str]  # of each group
    differs: bool


def _settings(groups: Sequence[Group]) -> Iterator[_Setting]:
    settings = [group.results[0].settings for group in groups]
    for name in dict.fromkeys(name for each in settings for name in each):
        values = [_value(name, each[name]) if name in each else "-" for each in settings]
        yield _Setting(name, values, len(set(values)) > 1)


def _value(name: str, value: Any) -> str:
    return shown_type(str(value)) if name.endswith("type") else shown(value)


def _versions(results: Sequence[Result]) -> Iterator[tuple[str, str, str]]:
    """Yields packages, with the versions the runs were made with, and the one of this page."""
    here, theirs = folders.versions(), [_saved_versions(result) for result in results]
    for name in dict.fromkeys([*here, *(name for each in theirs for name in each)]):
        of_runs = dict.fromkeys(each[name] for each in theirs if name in each)
        yield name, ", ".join(of_runs) or "-", here.get(name, "-")


def _saved_versions(result: Result) -> dict[str, str]:
    """Returns those with which the newest checkpoint of a run was written."""
    found = (result.directory / "checkpoints").glob("[0-9]*/manifest.json")
    for path in sorted(found, reverse=True):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            versions = json.loads(path.read_bytes())["content"]["facts"]["versions"]
            return {str(k): str(v) for k, v in versions.items()}
    return {}
