"""What setup.cfg declares, and the launcher .ci/venv with a Python that only pretends."""

import ast
import configparser
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
DISTRIBUTIONS = {
    "haiku": "dm-haiku",
    "dm_env": "dm-env",
    "tree": "dm-tree",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "ale_py": "ale-py",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "mlflow": "mlflow-skinny",
}
TOOLS = ("sh", "cat", "cksum", "cp", "dirname", "grep", "mkdir", "readlink", "rm", "sed", "tr")
OURS = {"rlws", "agents_zoo", "experiments"}

# Answers the launcher's questions and notes what it is asked to install.
PYTHON = """#!/bin/sh
case "$*" in
    *_base_executable*) {probe} ;;
    *fcntl*) ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *--upgrade*) ;;
    "-m pip install "*) shift 5; echo "$@" >> {log}; {install} ;;
    *) echo "ran in $PWD: $*" ;;
esac
"""


def requirements():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    declared = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    return [line for text in declared for line in text.split("\n") if line and line[0] != "#"]


def imported(package):
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield node.module.partition(".")[0]


def test_setup_declares_what_is_imported_and_nothing_else():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    options, extras = setup["options"], setup["options.extras_require"]
    optional = "".join(text for name, text in extras.items() if name != "dev")
    lines = (options["install_requires"] + optional).split("\n")
    declared = {re.split(r"[\[<>=]", line)[0] for line in lines if line and line[0] != "#"}
    used = {name for package in OURS for name in imported(package)}
    third_party = used - OURS - set(sys.stdlib_module_names)
    assert {DISTRIBUTIONS.get(name, name) for name in third_party} == declared


@pytest.mark.parametrize("requirement", requirements())
def test_setup_bounds_every_requirement_from_below(requirement):
    assert ">=" in requirement


class Launcher:
    """A repository with nothing in it but the launcher, and a PATH with nothing but its Python."""

    def __init__(self, folder):
        self.root, self.path, self.log = folder / "a clone", folder / "bin", folder / "log"
        self.root.mkdir()
        self.path.mkdir()
        (self.root / ".ci").mkdir()
        shutil.copy(ROOT / ".ci" / "venv", self.root / ".ci" / "venv")
        for name in ("setup.cfg", "setup.py"):
            shutil.copy(ROOT / name, self.root / name)
        for tool in TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool))
        self.python("python3.12")

    def python(self, name, probe='echo "$0"', install=":"):
        program = self.path / name
        program.write_text(PYTHON.format(probe=probe, log=self.log, install=install))
        program.chmod(0o755)

    def __call__(self, *args, launcher=None, **environment):
        launcher = launcher or self.root / ".ci" / "venv"
        environment = {"PATH": str(self.path), **environment}
        cwd = self.path.parent
        return subprocess.run(
            [launcher, *args], env=environment, cwd=cwd, capture_output=True, text=True, timeout=60
        )

    @property
    def installed(self):
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def launcher(tmp_path):
    return Launcher(tmp_path)


def test_venv_runs_the_command_in_the_root_and_installs_once(launcher):
    for _ in range(2):
        done = launcher(".", "python", "hello")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"ran in {launcher.root}: hello\n"
    assert launcher.installed == ["--editable ."]
    assert done.stderr == ""


def test_venv_is_found_through_a_link(launcher):
    link = launcher.path.parent / "link"
    link.symlink_to(launcher.root / ".ci" / "venv")
    assert launcher(".", "python", launcher=link).stdout == f"ran in {launcher.root}: \n"


def test_venv_adds_extras_up(launcher):
    for requirement in (".", ".[dev]", ".", ".[envs]", ".[dev,envs]"):
        assert launcher(requirement, "python").returncode == 0
    assert launcher.installed == ["--editable .", "--editable .[dev]", "--editable .[dev,envs]"]


def test_venv_installs_again_when_the_settings_change(launcher):
    launcher(".[dev]", "python")
    with (launcher.root / "setup.cfg").open("a") as settings:
        settings.write("# changed\n")
    launcher(".", "python")
    assert launcher.installed == ["--editable .[dev]"] * 2


def test_venv_skips_a_python_that_does_not_run(launcher):
    launcher.python("python3.13", probe="exit 127")
    assert "python3.12" in launcher(".", "python").stderr


def test_venv_takes_the_python_asked_for(launcher):
    launcher(".", "python")
    launcher.python("python3.11")
    assert "python3.11" in launcher(".", "python", PYTHON="python3.11").stderr
    assert launcher(".", "python").stderr == ""
    assert len(launcher.installed) == 2


def test_venv_says_what_to_install_without_the_venv_module(launcher):
    launcher.python("python3.12", probe="exit 2")
    done = launcher(".", "python")
    assert done.returncode == 1
    assert "apt install python3-venv" in done.stderr


def test_venv_says_when_there_is_no_python(launcher):
    (launcher.path / "python3.12").unlink()
    assert "no Python 3.11 or newer" in launcher(".", "python").stderr


def test_venv_failing_to_install_leaves_nothing(launcher):
    launcher.python("python3.12", install="echo no network; exit 1")
    done = launcher(".", "python")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "no network" in done.stderr
    assert not (launcher.root / ".venv").exists()


def test_venv_failing_to_update_keeps_the_old_and_tries_again(launcher):
    launcher(".", "python")
    launcher.python(launcher.root / ".venv" / "bin" / "python", install="exit 1")
    assert launcher(".[dev]", "python").returncode == 1
    assert launcher(".", "python").stderr == ""
    launcher.python(launcher.root / ".venv" / "bin" / "python")
    assert launcher(".[dev]", "python").returncode == 0


def test_venv_begins_anew_where_it_was_killed(launcher):
    launcher(".", "python")
    (launcher.root / ".venv" / "stamp").write_text("unfinished\n")
    (launcher.root / ".venv" / "half").touch()
    assert launcher(".", "python").returncode == 0
    assert not (launcher.root / ".venv" / "half").exists()


def test_venv_leaves_the_environment_of_another_alone(launcher):
    (launcher.root / ".venv").mkdir()
    assert "remove or rename" in launcher(".", "python").stderr


@pytest.mark.parametrize("args", [(), (".",), ("numpy", "python"), (".[nosuch]", "python")])
def test_venv_explains_wrong_arguments(launcher, args):
    done = launcher(*args)
    assert done.returncode == 1
    assert done.stderr.startswith(".ci/venv: ")
    assert not (launcher.root / ".venv").exists()


def test_ci_scripts_can_be_executed():
    for name in ("run", "venv"):
        assert os.access(ROOT / ".ci" / name, os.X_OK)
