"""The report of some runs: one page of HTML, complete in itself."""

import contextlib
import datetime
import json
import pathlib
import platform
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rlws.analysis import markup
from rlws.analysis.markup import Html, join, tag
from rlws.analysis.results import SCORE, Group, Result, column
from rlws.analysis.statistics import interquartile_mean, interval
from rlws.runs import folders
from rlws.runs.differences import shown, shown_type
from rlws.settings import SettingError
from rlws.tracking.progress import duration, number, short

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
    results = [result for group in groups for result in group.results]
    names = ", ".join(dict.fromkeys(result.name for result in results))
    where = ", ".join(dict.fromkeys(result.environment for result in results))
    runs = "1 run" if len(results) == 1 else f"{len(results)} runs"
    return markup.page(
        names,
        tag("h1", names),
        tag("p", f"{runs} in {where}", class_="soft"),
        *_section("Outcome", _outcome(groups)),
        *_section("Warnings", _warnings(results, notes)),
        *_section("Learning curves", join(_figures(groups))),
        *_section("Runs", _runs(results)),
        *_section("Videos", join(_videos(results)) if videos else Html("")),
        *_section("Settings", _settings(groups)),
        *_section("Versions, and how this page was made", _made(results, command)),
    )


def _section(title: str, content: Html) -> Iterator[Html]:
    if content:
        yield tag("h2", title)
        yield content


def _outcome(groups: Sequence[Group]) -> Html:
    header = ("", "seeds", "evaluation return", "95 % interval", "last training episodes")
    rows = []
    for group in groups:
        scores, training = group.numbers(SCORE), group.numbers(TRAINING)
        cells = [group.label, str(len(group.results)), _middle(scores)]
        ends = interval(scores) if len(scores) > 1 else None
        cells.append(f"{ends[0]:.4g} to {ends[1]:.4g}" if ends else "-")
        rows.append([*cells, _middle(training)])
    some = any(len(group.results) > 1 for group in groups)
    text = "Of several seeds: the interquartile mean, with its bootstrap interval."
    note = tag("p", text, class_="soft") if some else ""
    return join([markup.table(header, rows, (1, 2, 3, 4)), note])


def _middle(scores: np.ndarray) -> str:
    return f"{interquartile_mean(scores):.4g}" if len(scores) else "-"


def _warnings(results: Sequence[Result], notes: Sequence[str]) -> Html:
    found = [tag("li", note) for note in notes]
    for result in results:
        texts = [*result.summary.get("warnings", []), *result.summary.get("sinks_failed", [])]
        if result.state != "finished":
            texts = [result.state, *texts]
        where = f"{short(result.directory)}: " if len(results) > 1 else ""
        found += [tag("li", f"{where}{text}", class_="warn") for text in texts]
    return tag("ul", *found) if found else tag("p", "None.")


def _figures(groups: Sequence[Group]) -> Iterator[Html]:
    from rlws.analysis.curves import aligned, curves_figure
    from rlws.tracking.figures import panels_figure, return_figure
    from rlws.tracking.plots import panel_names

    if len(groups) == 1 and len(groups[0].results) == 1:
        columns = groups[0].results[0].columns()
        if not columns.get("steps"):
            return
        losses, diagnostics = panel_names(columns)
        figures = {
            "returns": return_figure(columns),
            "losses": panels_figure(columns, losses),
            "diagnostics": panels_figure(columns, diagnostics),
        }
        for name, figure in figures.items():
            if figure:
                yield tag("figure", markup.svg(figure, name, f"{name} over environment steps"))
        return
    for metric in CURVES:
        curves = []
        for group in groups:
            series = [found for result in group.results if (found := _series(result, metric))]
            if series:
                curves.append(aligned(group.label, series))
        if any(curve.steps[0] < curve.steps[-1] for curve in curves):
            picture = markup.svg(curves_figure(curves, metric), metric, f"{metric} over steps")
            caption = "Lines: interquartile means over seeds; bands: their 95 % intervals."
            yield tag("figure", picture, tag("figcaption", caption))


def _series(result: Result, metric: str) -> Any:
    try:
        return column(result, metric)
    except SettingError:  # a run without an episode or an evaluation
        return None


def _runs(results: Sequence[Result]) -> Html:
    header = ("run", "seed", "steps", "episodes", "updates", "time", "evaluation", "state")
    rows = []
    for result in results:
        counts = [_count(result, name) for name in ("steps", "episodes", "updates")]
        seconds = result.number("seconds")
        time = duration(seconds) if np.isfinite(seconds) else "-"
        mean, deviation = result.number(SCORE), result.number("evaluation_return_std")
        score = f"{mean:.4g}" if np.isfinite(mean) else "-"
        if np.isfinite(deviation):
            score += f" ± {deviation:.3g}"
        place = short(result.directory)
        rows.append([place, str(result.seed), *counts, time, score, result.state])
    text = "Evaluation: mean and standard deviation over greedy episodes."
    return join([markup.table(header, rows, range(1, 7)), tag("p", text, class_="soft")])


def _count(result: Result, name: str) -> str:
    value = result.number(name)
    return number(int(value)) if np.isfinite(value) else "-"


def _videos(results: Sequence[Result]) -> Iterator[Html]:
    found = []
    for result in results:
        for path in sorted((result.directory / "videos").glob("*.mp4")):
            address = markup.data_uri(path.read_bytes(), "video/mp4")
            name = path.stem if len(results) == 1 else f"{short(result.directory)} {path.stem}"
            film = tag("video", src=address, controls="", muted="", loop="", preload="metadata")
            found.append(tag("figure", film, tag("figcaption", name.replace("_", " "))))
    if found:
        yield tag("div", *found, class_="row")


def _settings(groups: Sequence[Group]) -> Html:
    settings = [group.results[0].settings for group in groups]
    names = dict.fromkeys(name for each in settings for name in each)
    rows: dict[bool, list[list[str]]] = {True: [], False: []}
    for name in names:
        values = [_value(name, each[name]) if name in each else "-" for each in settings]
        differs = len(set(values)) > 1
        cells = [tag("mark", value) for value in values] if differs else values[:1]
        rows[differs].append([tag("code", name), *cells])
    parts = []
    if rows[True]:
        header = ("differs", *(group.label for group in groups))
        parts.append(markup.table(header, rows[True]))
    same = markup.table(("setting", "value"), rows[False])
    if len(groups) > 1:
        same = tag("details", tag("summary", f"{len(rows[False])} that do not differ"), same)
    return join([*parts, same])


def _value(name: str, value: Any) -> str:
    return shown_type(str(value)) if name.endswith("type") else shown(value)


def _made(results: Sequence[Result], command: str) -> Html:
    now = datetime.datetime.now().astimezone()
    text = f"{now:%Y-%m-%d %H:%M %Z}, on {platform.system()} {platform.machine()}, by"
    here = folders.versions()
    theirs = [_versions(result) for result in results]
    rows = []
    for name in dict.fromkeys([*here, *(name for each in theirs for name in each)]):
        of_runs = dict.fromkeys(each[name] for each in theirs if name in each)
        rows.append((name, ", ".join(of_runs) or "-", here.get(name, "-")))
    table = markup.table(("", "of the runs", "of this page"), rows)
    return join([tag("p", text), tag("pre", command), table])


def _versions(result: Result) -> dict[str, str]:
    """Returns those with which the newest checkpoint of a run was written."""
    found = (result.directory / "checkpoints").glob("[0-9]*/manifest.json")
    for path in sorted(found, reverse=True):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            versions = json.loads(path.read_bytes())["content"]["facts"]["versions"]
            return {str(k): str(v) for k, v in versions.items()}
    return {}


def write(text: str, output: pathlib.Path) -> None:
    """Writes the page.

    Raises:
      SettingError: the file cannot be written.
    """
    from rlws.tracking.files import replacing

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingError(
            f"--output must be writable, got {str(output)!r}: {error.strerror}; choose another"
        ) from None
