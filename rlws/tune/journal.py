"""What a study knows already: scores, on the disk before anything follows from them."""

import json
import math
import os
import pathlib

from rlws.settings import SettingError, describe
from rlws.tracking.files import complete_lines
from rlws.tune.methods import Job


class Journal:
    """Scores of jobs, kept in a file."""

    def __init__(self, path: pathlib.Path):
        """Reads the file, if it is there; a line that a kill cut in two is left out."""
        self._path, self._known = path, dict[tuple[int, int], dict]()
        if path.exists():
            lines = complete_lines(path)
            path.write_text("".join(lines), encoding="utf-8")
            for entry in map(json.loads, lines):
                self._known[entry["trial"], entry["steps"]] = entry

    def __len__(self) -> int:
        return len(self._known)

    def score(self, job: Job) -> float | None:
        """Returns the score of a job; None if there is none yet.

        Raises:
          SettingError: the trial of that number had other settings.
        """
        entry = self._known.get((job.trial, job.steps))
        if entry is None:
            return None
        if entry["settings"] != _plain(job):
            raise SettingError(
                f"{self._path}: trial {job.trial} must have the settings it had, "
                f"{entry['settings']}, got {_plain(job)}; begin another study"
            )
        return -math.inf if entry["score"] is None else entry["score"]

    def add(self, job: Job, score: float) -> None:
        """Adds a score."""
        known = score if math.isfinite(score) else None
        entry = {"trial": job.trial, "steps": job.steps, "score": known, "settings": _plain(job)}
        self._known[job.trial, job.steps] = entry
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _plain(job):
    return json.loads(json.dumps({name: describe(value) for name, value in job.settings.items()}))
