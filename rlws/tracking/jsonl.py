"""Records on disk for other programs: metrics.jsonl."""

import json

from rlws.tracking.files import append, plain, replacing, resumed_lines
from rlws.tracking.sink import Row, Run, Sink


class Jsonl(Sink):
    """Writes `metrics.jsonl`: a JSON object a row, with the metrics that the row has.

    Valid JSON whatever the values: NaN and infinities become null. A line is one write, flushed at
    once. A resumed run keeps the rows up to its start.
    """

    def start(self, run: Run) -> None:
        """Starts the file, with the rows kept when resuming."""
        self._path = run.directory / "metrics.jsonl"
        lines = resumed_lines(self._path, run)
        kept = [line for line in lines if run.keeps(json.loads(line)["steps"])]
        with replacing(self._path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8", newline="")

    def log(self, row: Row) -> None:
        """Appends `row`."""
        append(self._path, (json.dumps(plain(row), allow_nan=False) + "\n").encode())
