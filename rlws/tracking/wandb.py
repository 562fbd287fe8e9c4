"""A run in Weights & Biases; WANDB_MODE=offline keeps it on this machine."""

import os
import re
import secrets
from collections.abc import Mapping
from typing import Any

from rlws.settings import importing
from rlws.tracking.files import plain, replace, resumed_lines
from rlws.tracking.sink import Row, Run, Sink


class Wandb(Sink):
    """Sends rows, configuration and summary to the project WANDB_PROJECT, or of the experiment.

    W&B's other variables (WANDB_MODE, WANDB_ENTITY, WANDB_API_KEY) hold, too. Its files go to
    `wandb/` in the run's folder, where `id` lets a resumed run go on as the same W&B run.
    """

    def __init__(self):
        with importing("tracking with 'wandb'", "wandb"):
            import wandb
        self._wandb = wandb
        self.outside_errors = (OSError, wandb.Error)

    def start(self, run: Run) -> None:
        """Starts or continues the W&B run."""
        self._path = run.directory / "wandb" / "id"
        self._path.parent.mkdir(exist_ok=True)
        known = resumed_lines(self._path, run)
        self._identity = known[0].strip() if known else new_identity(run)
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", run.name),
            name=run.label,
            id=self._identity,
            dir=str(run.directory),
            config=plain(run.config),
            allow_val_change=True,  # a resumed run may have been given more steps
            resume="allow" if known else None,
            reinit="create_new",
            settings=self._wandb.Settings(silent=True, console="off"),
        )
        self._remember()

    def log(self, row: Row) -> None:
        """Hands `row` to W&B's process, which sends it without holding up the run."""
        self._run.log({name: float(value) for name, value in row.items()}, step=int(row["steps"]))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Adds the summary, and waits until all is sent."""
        self._run.summary.update(plain(summary))
        self._run.finish(exit_code=int("ended_by" in summary))
        # W&B's process keeps a full disk to itself; writing here, too, brings it to light.
        self._remember()

    def _remember(self) -> None:
        replace(self._path, self._identity + "\n")


def new_identity(run: Run) -> str:
    """Returns the name of the run's folder, as letters, digits and dashes, with a random end.

    Folders are named by time and seed, so two experiments may well have equal ones.
    """
    name = re.sub(r"[^\w.-]+", "-", run.label, flags=re.ASCII)[:50]
    return f"{name}-{secrets.token_hex(4)}"
