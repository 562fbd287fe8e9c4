import os

import numpy as np
import pytest
from imageio_ffmpeg import count_frames_and_secs, read_frames

from rlws.settings import SettingError
from rlws.tracking import write_video


def frames(count, height, width):
    for index in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[:, : width // 2] = (20 * index, 0, 0)
        frame[:, width // 2 :] = (0, 0, 255)
        yield frame


# imageio_ffmpeg.read_frames, used here only to look, leaves its pipes to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(32, 48, (48, 32)), (34, 50, (50, 34)), (31, 45, (46, 32)), (32, 45, (46, 32))],
)
def test_video_has_the_frames_and_size(tmp_path, capfd, height, width, size):
    path = write_video(tmp_path / "a.mp4", frames(10, height, width), 20)
    assert count_frames_and_secs(path) == (10, pytest.approx(0.5, abs=0.02))
    decoded = read_frames(path)
    meta = next(decoded)
    assert meta["size"] == size
    assert meta["codec"] == "h264"
    assert meta["pix_fmt"].startswith("yuv420p")
    images = [np.frombuffer(image, np.uint8).reshape(*size[::-1], 3) for image in decoded]
    assert len(images) == 10
    np.testing.assert_allclose(images[9][4, 4], [180, 0, 0], atol=12)
    np.testing.assert_allclose(images[9][-1, -1], [0, 0, 255], atol=12)
    assert os.listdir(tmp_path) == ["a.mp4"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "at least one frame"),
        ([np.zeros((4, 4, 3))], "uint8"),
        ([np.zeros((4, 4), np.uint8)], "uint8"),
        ([np.zeros((16, 16, 3), np.uint8), np.zeros((18, 16, 3), np.uint8)], "one size"),
    ],
)
def test_video_refuses_bad_frames_and_leaves_nothing(tmp_path, images, message):
    with pytest.raises(SettingError, match=message):
        write_video(tmp_path / "a.mp4", iter(images), 20)
    assert os.listdir(tmp_path) == []


def test_video_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def broken():
        yield from frames(2, 16, 16)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, broken(), 20)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_video_reports_an_unwritable_place(tmp_path):
    with pytest.raises(OSError, match=r"ffmpeg|Broken pipe"):
        write_video(tmp_path / "absent" / "a.mp4", frames(3, 16, 16), 20)


def test_video_notices_missing_frames(tmp_path, monkeypatch):
    monkeypatch.setattr("imageio_ffmpeg.count_frames_and_secs", lambda _: (2, 0.1))
    with pytest.raises(OSError, match="ffmpeg wrote 2 of 3 frames"):
        write_video(tmp_path / "a.mp4", frames(3, 16, 16), 20)
    assert os.listdir(tmp_path) == []
