"""Videos that play in browsers."""

import contextlib
import itertools
import os
import pathlib
from collections.abc import Iterable

import numpy as np

from rlws.settings import SettingError
from rlws.tracking.files import replacing


def write_video(
    path: str | os.PathLike, frames: Iterable[np.ndarray], frames_per_second: float
) -> pathlib.Path:
    """Writes an mp4 (H.264, yuv420p) under a temporary name, then moves it to `path`.

    Args:
      path: the file, ending in .mp4, in a folder that exists.
      frames: uint8 [H, W, 3], all of one size. An odd side is made even by repeating its last
        pixels, since yuv420p halves both sides; nothing is rescaled.
      frames_per_second: of the video.

    Returns:
      `path`.

    Raises:
      SettingError: no frames, or one of a wrong type or shape.
      OSError: ffmpeg could not write the file, or not all of it.
    """
    from imageio_ffmpeg import count_frames_and_secs, write_frames

    # Else it forks to run Python before ffmpeg, which may deadlock as JAX is multithreaded.
    os.environ.setdefault("IMAGEIO_FFMPEG_NO_PREVENT_SIGINT", "1")
    path, frames = pathlib.Path(path), iter(frames)
    first = next(frames, None)
    if first is None:
        raise SettingError(f"a video needs at least one frame, got none for {path.name}")
    height, width = _even(first, first).shape[:2]
    with replacing(path) as temporary:
        writing = write_frames(
            temporary,
            (width, height),
            fps=frames_per_second,
            quality=7,
            macro_block_size=1,  # its default rescales to multiples of 16
            ffmpeg_log_level="error",
            output_params=["-movflags", "+faststart"],
        )
        with contextlib.closing(writing) as writer:
            writer.send(None)
            for written, frame in enumerate(itertools.chain([first], frames), 1):  # noqa: B007
                writer.send(_even(frame, first))
        # imageio_ffmpeg drops ffmpeg's exit status: a full disk shows only in the file.
        found = 0
        with contextlib.suppress(RuntimeError):
            found, _ = count_frames_and_secs(temporary)
        if found != written:
            raise OSError(f"ffmpeg wrote {found} of {written} frames of {path}; is the disk full?")
    return path


def check_frame(frame: np.ndarray) -> None:
    """Raises a SettingError unless it can be part of a video."""
    _even(frame, frame)


def _even(frame: np.ndarray, first: np.ndarray) -> np.ndarray:
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise SettingError(
            f"a frame must be uint8 [H, W, 3], got {frame.dtype} {list(frame.shape)}; mend what "
            "the environment's render returns"
        )
    if frame.shape != np.shape(first):
        raise SettingError(f"frames must have one size {np.shape(first)}, got {frame.shape}")
    height, width, _ = frame.shape
    padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    return np.ascontiguousarray(padded)
