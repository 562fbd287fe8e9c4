"""What Haiku refuses, and what to take instead."""

import contextlib
from collections.abc import Iterator

from rlws.settings import SettingError

# By what Haiku says when it refuses something.
ADVICE = {
    "with_state": "a network has no state of Haiku's, as hk.BatchNorm would need; take "
    "networks.BatchNorm(), whose statistics are among the parameters",
    "non-None PRNGKey": "a network draws without asking whether it may; ask "
    "hk.maybe_next_rng_key(), which is None where nothing is to be drawn, or take "
    "networks.dropout(features, rate)",
}


@contextlib.contextmanager
def advice() -> Iterator[None]:
    """Says what to do instead, where Haiku refuses what a network asks for.

    Raises:
      SettingError: the network has a state of Haiku's, or draws without asking.
    """
    try:
        yield
    except Exception as error:
        for said, instead in ADVICE.items():
            if said in str(error):
                raise SettingError(instead) from error
        raise
