import base64
import configparser
import html.parser
import importlib.metadata
import json
import pathlib
import re
import xml.etree.ElementTree

import pytest

from rlws.__main__ import main
from tests.commands.folders import write_run, write_seeds

ROOT = pathlib.Path(__file__).parents[2]
EVIL = "</title></svg><script>alert('x')</script>$\\frac<b onload=\"f()\">&amp;"
VOID = {"meta", "br", "img", "link"}


class Reader(html.parser.HTMLParser):
    """Notes elements and text, and whether each element is closed where it should be."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.open = [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        if self.open[-1:] != ["style"]:
            self.texts.append(text)

    def all(self, name):
        return [attributes for found, attributes in self.elements if found == name]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(*args, output="report.html"):
    assert main(["report", *args, "--output", output]) == 0
    with open(output, encoding="utf-8") as file:
        source = file.read()
    return source, Reader(source)


def test_report_of_a_run_says_how_it_went(here, capsys):
    write_run(here / "run", seed=3, score=7.25)
    for step, version in ((90, "0.1"), (400, "0.7.1")):
        manifest = {"content": {"facts": {"versions": {"jax": version, "python": "3.11.9"}}}}
        path = here / "run" / "checkpoints" / f"{step:012d}" / "manifest.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(manifest))
    source, found = report("run")
    assert source.startswith("<!DOCTYPE html>\n<html")
    assert "1 run in jax:Catch" in found.text
    # run, seed, steps, episodes, updates, time, evaluation, state
    assert "run 3 400 4 7 1:15 7.25 ± 0.25 finished" in found.text
    assert "agent.learning_rate 0.003" in found.text
    assert "agent.backbone.hidden_sizes 64,64" in found.text
    assert "elsewhere" not in found.text  # where it ran is nobody's business
    assert "rlws report run --output report.html" in found.text
    assert f"jax 0.7.1 {importlib.metadata.version('jax')}" in found.text
    assert "python 3.11.9" in found.text
    assert f"numpy - {importlib.metadata.version('numpy')}" in found.text
    assert [attributes["aria-label"] for attributes in found.all("svg")] == [
        "return over environment steps",
        "losses over environment steps",
    ]
    assert re.search(r"report in report.html \(\d\.\d MB\)", capsys.readouterr().out)


def test_report_of_groups_marks_what_differs_and_only_that(here):
    write_seeds(here / "a", [1.0, 2, 3, 9], agent__learning_rate=0.1)
    write_run(here / "b", score=5.0)
    source, found = report("a", "b")
    assert re.findall(r"<mark>(.*?)</mark>", source) == ["0.1", "0.003"]
    assert "learning_rate=0.1 4 2.5 1 to 9 2.5" in found.text  # seeds, IQM, interval, training
    assert "learning_rate=0.003 1 5 - 2.5" in found.text
    assert len(found.all("svg")) == 1
    assert "learning_rate=0.1 (4 seeds)" in found.text  # the legend
    assert "that do not differ" in found.text


def test_report_says_what_went_wrong(here):
    summary = {"ended_by": "NonFiniteError: w is not finite", "warnings": ["kl is high"]}
    write_run(here / "crashed", summary=summary)
    write_run(here / "half", seed=1, summary={})
    write_run(here / "again", summary=summary)
    _, found = report("crashed", "half", "again")
    assert "crashed: ended by NonFiniteError: w is not finite crashed: kl is high" in found.text
    assert "half: unfinished" in found.text
    assert "left out: settings and seed of" in found.text
    _, found = report(str(write_run(here / "fine", seed=7)))
    assert "Warnings None." in found.text


def test_report_escapes_everything(here):
    """Whatever stands in the files of a run, no element comes of it, and no script."""
    evil = {"name": EVIL, "environment": EVIL, "agent__learning_rate": EVIL}
    summary = {"ended_by": EVIL, "warnings": [EVIL], "evaluation_return_mean": 1.0}
    write_run(here / "one", summary=summary, **evil)
    write_run(here / "two", summary=summary, **evil | {"agent__learning_rate": EVIL * 2})
    (here / "one" / "metrics.csv").write_text(
        f'steps,episode_return,"{EVIL.replace(chr(34), chr(34) * 2)}"\n1,1,1\n2,2,2\n'
    )
    for args in (["one"], ["one", "two"]):
        source, found = report(*args)
        assert "<script" not in source
        assert {name for name, _ in found.elements} <= {
            *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "div"),
            *("table", "thead", "tbody", "tr", "th", "td", "ul", "li", "figure", "figcaption"),
            *("svg", "defs", "g", "path", "use", "text", "tspan", "rect", "clippath"),
            *("code", "pre", "mark", "details", "summary", "metadata"),
        }
        assert not any(key.startswith("on") for _, given in found.elements for key in given)
        assert found.text.count("alert('x')") >= 5
        for picture in re.findall(r"<svg.*?</svg>", source, re.DOTALL):
            xml.etree.ElementTree.fromstring(picture)


def test_report_needs_nothing_else(here):
    write_seeds(here / "a", [1.0, 2.0])
    write_run(here / "b", seed=9, agent__learning_rate=1.0)
    for folder in ("a", "b"):
        source, found = report(folder)
        addresses = [
            value
            for _, given in found.elements
            for key, value in given.items()
            if key in ("src", "href", "xlink:href", "data", "poster", "action")
        ]
        assert all(address.startswith(("data:", "#")) for address in addresses)
        assert not {"script", "link", "iframe", "img", "object"} & {n for n, _ in found.elements}
        assert "@import" not in source
        ids = re.findall(r'\bid="([^"]+)"', source)
        assert len(ids) == len(set(ids)) > 5
        for target in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', source):
            assert "".join(target) in ids
        (policy,) = [
            x["content"] for x in found.all("meta") if "content" in x and "http-equiv" in x
        ]
        assert "default-src 'none'" in policy


def test_report_holds_the_videos(here):
    film = bytes(range(256))
    folder = write_run(here / "run") / "videos"
    folder.mkdir()
    (folder / "steps_000000400.mp4").write_bytes(film)
    source, found = report("run")
    (video,) = found.all("video")
    assert video["src"] == "data:video/mp4;base64," + base64.b64encode(film).decode()
    assert "controls" in video
    assert "steps 000000400" in found.text
    assert main(["report", "run", "--no-videos"]) == 0
    small = (here / "report.html").read_text()
    assert "<video" not in small
    assert "rlws report run --output report.html --no-videos" in small
    assert len(small) < len(source)


def test_report_of_a_run_that_has_just_begun(here):
    write_run(here / "run", summary={}, returns=(None,) * 5)
    (here / "run" / "metrics.csv").write_text("steps,episodes\n")
    _, found = report("run")
    assert "run 0 - - - - - unfinished" in found.text
    assert found.all("svg") == []


def test_layout_of_reports_is_installed_with_the_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["rlws.analysis"].split()
    folder = ROOT / "rlws" / "analysis"
    shipped = {path.name for pattern in patterns for path in folder.glob(pattern)}
    assert "report.html.jinja" in shipped


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "DIR must be a folder that is there, got 'nowhere'"),
        (["run", "--output", "report.pdf"], "--output must end in .html, got 'report.pdf'"),
        (["run", "--output", "run/config.json/x.html"], "--output must be writable"),
        (["empty"], "empty has no metrics.csv"),
    ],
)
def test_report_explains_wrong_input_in_one_line(args, message, here, capsys):
    write_run(here / "run")
    (write_run(here / "empty") / "metrics.csv").unlink()
    assert main(["report", *args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
