"""JAX's compilation cache, kept in the user's cache folder."""

import os
import pathlib
import sys
from typing import Any

import jax


def enable_cache() -> None:
    """Keeps compiled programs from run to run, unless JAX was told where to keep them, or not to.

    JAX's own settings decide: JAX_COMPILATION_CACHE_DIR names another folder,
    JAX_ENABLE_COMPILATION_CACHE=false turns the cache off. Deleting the folder is always safe.
    """
    config: Any = jax.config  # its attributes are made while JAX is imported
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        return
    jax.config.update("jax_compilation_cache_dir", str(_user_cache() / "rlws" / "jax"))
    # By default JAX keeps what took a second to compile, and hardly any of these programs does.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _user_cache() -> pathlib.Path:
    if named := os.environ.get("XDG_CACHE_HOME"):
        return pathlib.Path(named)
    home = pathlib.Path.home()
    return home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"
