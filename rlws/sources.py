"""Where code comes from that a run folder names: from packages, or from scripts one trusts.

What a folder from elsewhere names is not imported for its asking: it could be any file beside it.
"""

import importlib
import importlib.util
import pathlib
import sys
import sysconfig
from importlib import metadata
from types import ModuleType
from typing import Any

OURS = ("rlws", "agents_zoo", "experiments")
scripts: dict[str, str] = {}  # files that were loaded, by the names of their modules
_instead: dict[str, ModuleType] = {}
_trusting = False


class UntrustedError(ImportError):
    """A module is neither of an installed package nor trusted."""


def trust() -> None:
    """Has this process import whatever a run folder names, from here on."""
    global _trusting
    _trusting = True


def trusted() -> bool:
    """Returns whether it does."""
    return _trusting


def load(file: str, name: str = "") -> ModuleType:
    """Returns the module of a script; its classes say they are of module `name`, if given."""
    own = pathlib.Path(file).stem
    spec: Any = importlib.util.spec_from_file_location(own, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[own] = module  # where annotations of its classes are looked up
    spec.loader.exec_module(module)
    scripts[own] = str(pathlib.Path(file).resolve())
    if name and name != own:  # a script that was run has the name __main__
        _instead[name] = module
        for each in vars(module).values():
            if isinstance(each, type) and each.__module__ == own:
                each.__module__ = name
    return module


def module(name: str) -> ModuleType:
    """Returns a module that a run folder names.

    Raises:
      UntrustedError: see there.
      ImportError: there is none of this name.
    """
    if name in _instead:
        return _instead[name]
    root = name.partition(".")[0]
    if root in (*OURS, *sys.modules) or _trusting or _installed(root):
        return importlib.import_module(name)
    raise UntrustedError(
        f"{name!r} is of no installed package; --trust imports it, if you know what it does"
    )


def file_of(name: str) -> str | None:
    """Returns the script that is a module in this process; None: it is none."""
    if name == "__main__":
        return getattr(sys.modules["__main__"], "__file__", None)
    return scripts.get(name)


def _installed(root: str) -> bool:
    spec = importlib.util.find_spec(root)  # of a module without dots: nothing is imported
    if spec is None:
        return True  # nothing is there to be imported
    paths = sysconfig.get_paths()
    places = [pathlib.Path(paths[key]) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    where = [spec.origin, *(spec.submodule_search_locations or ())]
    found = [pathlib.Path(x) for x in where if x and x not in ("built-in", "frozen")]
    inside = all(any(path.is_relative_to(place) for place in places) for path in found)
    return inside or root in metadata.packages_distributions()  # as what is editable
