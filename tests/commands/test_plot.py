import pytest

from rlws.__main__ import main
from tests.commands.folders import write_run, write_seeds


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_seeds(tmp_path / "a", [1, 2, 3], agent__learning_rate=0.1)
    write_run(tmp_path / "b", seed=5, returns=(None, 2, 4, 6, 8))
    return tmp_path


def test_plot_groups_by_what_differs_and_says_where_curves_end(here, capsys):
    assert main(["plot", "a", "b", "--output", "out/curves.png"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "learning_rate=0.1: episode_return 4 at 400 steps (3 seeds)",
        "learning_rate=0.003: episode_return 8 at 400 steps (1 seed)",
        "figure in out/curves.png",
    ]
    assert (here / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_plot_of_another_metric_writes_what_the_name_says(here, capsys):
    assert main(["plot", "b", "--metric", "loss", "--output", "loss.svg"]) == 0
    assert "toy: loss 0.5 at 400 steps (1 seed)" in capsys.readouterr().out
    text = (here / "loss.svg").read_text()
    assert text.startswith("<?xml")
    assert "</svg>" in text


def test_plot_goes_to_results_by_default_and_notes_repetitions(here, capsys):
    write_run(here / "c", seed=5)
    assert main(["plot", "b", "c"]) == 0
    (path,) = here.glob("results/plots/*.png")
    out = capsys.readouterr().out
    assert f"figure in {path.relative_to(here)}" in out
    assert "b left out: settings and seed of c" in out or "c left out" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "DIR must be a folder that is there, got 'nowhere'"),
        (["a", "--metric", "losss"], "--metric: a/0_seed0: unknown value 'losss'; did you mean"),
        (["a", "--output", "curves.bmp"], "--output must end in .png, .svg or .pdf, got 'curve"),
        (["a", "--output", "b/config.json/x.png"], "--output must be writable, got 'b/config"),
    ],
)
def test_plot_explains_wrong_input_in_one_line(args, message, here, capsys):
    assert main(["plot", *args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
