"""Where code comes from that a run folder names: from packages, or from a script of the user's.

A folder may be a stranger's, and importing runs code. So what it names is imported if it belongs to
an installed package; if not, only where the user has said so, or has run that file here before.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import pathlib
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextvars import ContextVar
from importlib import metadata
from types import ModuleType

ROOT = pathlib.Path(__file__).resolve().parents[1]
OURS = ("rlws", "agents_zoo", "experiments")  # packages that lie there
Code = tuple[str, str]  # a module by name, and its file; "" where it is installed

_trusting = ContextVar("trusting", default=False)
_loading = ContextVar("loading", default=False)


class Untrusted(ImportError):
    """A module is not of an installed package, and nobody has said that it may be imported."""


class Begun(BaseException):
    """A module that is only looked at begins a run; what comes after is not looked at."""


@contextlib.contextmanager
def trusting(whether: bool = True) -> Iterator[None]:
    """Within it, whatever a folder names may be imported, from the current folder, too."""
    before = _trusting.set(whether or _trusting.get())
    if whether:
        look_in(os.getcwd())
    try:
        yield
    finally:
        _trusting.reset(before)


def trusted() -> bool:
    """Returns whether the user has said so."""
    return _trusting.get()


def look_in(folder: str | pathlib.Path) -> None:
    """Has imports look in a folder as well, after everywhere else."""
    for name in OURS:  # an editable install would be looked for later still
        importlib.import_module(name)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def installed(name: str) -> bool:
    """Returns whether a module is of a package that was installed, or of ours."""
    top = name.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None or top in sys.stdlib_module_names or name.endswith("__main__"):
        return False  # neither has settings, but both have surprises
    places = [spec.origin] if spec.origin else [*(spec.submodule_search_locations or ())]
    paths = [pathlib.Path(place).resolve() for place in places]
    if top in OURS and all(path.parent in (ROOT, ROOT / top) for path in paths):
        return True
    return bool(paths) and all(_of_packages(path) or _editable(top, path) for path in paths)


def allowed(name: str) -> bool:
    """Returns whether a module that a folder names may be imported, or is already."""
    return name in sys.modules or trusted() or installed(name)


def imported(name: str) -> ModuleType:
    """Returns a module that a folder names.

    Raises:
      Untrusted: it must not be imported.
      ImportError: it is not there.
    """
    if name == name_of("__main__"):
        return sys.modules["__main__"]
    if not allowed(name):
        raise Untrusted(name)
    return importlib.import_module(name)


def name_of(module: str) -> str:
    """Returns the name by which others can import a module, also one that was run as a script."""
    main = sys.modules["__main__"]
    if module != "__main__":
        return module
    if spec := getattr(main, "__spec__", None):
        return spec.name
    path = pathlib.Path(getattr(main, "__file__", None) or "")
    return path.stem if path.suffix == ".py" else module


def code_of(module: ModuleType) -> Code | None:
    """Returns where a module of the user's is, who has run it here; None where nothing has a name.

    From now on what this file defines is used without a question.
    """
    name, file = name_of(module.__name__), getattr(module, "__file__", None) or ""
    if installed(name.partition(".")[0]):
        return None if name.endswith("__main__") else (name, "")
    path = pathlib.Path(file).resolve()
    if path.suffix != ".py" or _of_packages(path):
        return None
    with contextlib.suppress(OSError):  # then he is asked
        if str(path) not in _ran():
            _record().parent.mkdir(parents=True, exist_ok=True)
            with open(_record(), "a", encoding="utf-8", errors="surrogateescape") as record:
                record.write(f"{path}\n")
    return name, str(path)


def use(code: Code | None) -> str:
    """Imports the module that made a run; returns what to say where it must not be, or is gone."""
    if code is None:
        return ""
    name, file = code
    if not file:
        if installed(name):
            with contextlib.suppress(ImportError):
                load(name)
        return ""
    path = pathlib.Path(file)
    if not path.match(name.replace(".", "/") + ".py"):
        return ""
    known = sys.modules["__main__" if name == name_of("__main__") else name] if _has(name) else None
    if known and pathlib.Path(getattr(known, "__file__", None) or "").resolve() == path:
        return ""
    if not trusted() and str(path) not in _ran():
        return (
            f"{path} made this run, and was never run by rlws on this machine: --trust imports "
            "it, if you know who wrote it"
        )
    if trusted() and not path.is_file():
        path = pathlib.Path.cwd().joinpath(*path.parts[-1 - name.count(".") :])
    if not path.is_file():
        return f"{file}, which made this run, is gone; with --trust, {path.name} here will do"
    load(name, path)
    return ""


def load(name: str, path: pathlib.Path | None = None) -> ModuleType:
    """Returns a module, imported anew from its file if there is one, up to where it begins a run.

    Raises:
      Untrusted: an installed module has the name.
    """
    before = _loading.set(True)
    try:
        if path is None:
            return importlib.import_module(name)
        with contextlib.suppress(Begun):
            if _has(name) and (installed(name) or name in sys.stdlib_module_names):
                raise Untrusted(f"{path} must not be called like {name}, which is installed")
            look_in(path.resolve().parents[name.count(".")])
            if "." in name:
                importlib.import_module(name.rpartition(".")[0])
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None
            assert spec.loader is not None
            # Where annotations of its classes are looked up.
            sys.modules[name] = module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        return sys.modules[name]
    except Begun:
        text = f'{name} begins a run when imported; put that under if __name__ == "__main__":'
        raise ImportError(text) from None
    except SystemExit as error:  # which would end us as if all were well
        text = f'{name} exits when imported; put that under if __name__ == "__main__":'
        raise ImportError(text) from error
    finally:
        _loading.reset(before)


def begin() -> None:
    """Is called where a run begins, which ends the import of a module that is only looked at."""
    if _loading.get():
        raise Begun


def _has(name: str) -> bool:
    return name in sys.modules or name == name_of("__main__")


def _of_packages(path: pathlib.Path) -> bool:
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    folders += [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    return any(path.is_relative_to(pathlib.Path(folder).resolve()) for folder in folders)


def _editable(top: str, path: pathlib.Path) -> bool:
    """Returns whether a package was installed from the folder where its path is."""
    for name in metadata.packages_distributions().get(top, ()):
        found = json.loads(metadata.distribution(name).read_text("direct_url.json") or "{}")
        folder = found.get("url", "").removeprefix("file://")
        if found.get("dir_info", {}).get("editable") and path.is_relative_to(folder):
            return True
    return False


def _record() -> pathlib.Path:
    """Returns the file that holds the files which the user has run here."""
    state = os.environ.get("XDG_STATE_HOME") or pathlib.Path.home() / ".local" / "state"
    return pathlib.Path(state, "rlws", "ran")


def _ran() -> list[str]:
    with contextlib.suppress(OSError):
        return _record().read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return []
