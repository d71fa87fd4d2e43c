"""A camera, video file or network stream through OpenCV that survives being unplugged. No ROS."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from aecf_ros.nodes.drivers.devices import Backoff, DeviceError

STOP_S = 5.0
OPEN_S = 15.0
DEFAULT_FILE_RATE_HZ = 30.0


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """What to grab.

    ``source`` is an index, a device path, a file or a URL. ``width``, ``height`` and ``rate_hz`` of 0 and an empty
    ``fourcc`` leave the choice to the source.
    """

    source: str
    fourcc: str
    width: int
    height: int
    rate_hz: float
    loop: bool
    silent_after_s: float
    reopen_after_s: float
    reopen_at_most_s: float

    @property
    def is_device(self) -> bool:
        """Whether the source is a camera of this machine."""
        return self.source.isdecimal() or self.source.startswith("/dev/")

    @property
    def is_file(self) -> bool:
        """Whether the source is a video file, which has its own rate and an end."""
        return not self.is_device and "://" not in self.source


@dataclass(frozen=True, slots=True)
class Shot:
    """A frame, uint8 ``(height, width, 3)`` BGR, and the node time right after it was grabbed."""

    stamp_ns: int
    image: np.ndarray


@dataclass(frozen=True, slots=True)
class CameraHealth:
    """State of a camera. ``trouble`` is empty while frames arrive; ``ended`` is set after the last frame of a file."""

    trouble: str
    ended: bool
    grabbed: int
    dropped: int
    openings: int
    width: int
    height: int


class Camera:
    """Grabs frames in a thread until stopped; opens the source again whenever it fails.

    Only the newest frame is kept. A frame that was not taken before the next one is counted as dropped.

    Args:
        now_ns: node time; called from the grabbing thread.
        on_news: called from the grabbing thread when ``take`` or ``health`` has something new.
    """

    def __init__(self, settings: CameraSettings, now_ns: Callable[[], int], on_news: Callable[[], None]) -> None:
        self._settings = settings
        self._now_ns = now_ns
        self._on_news = on_news
        self._lock = threading.Lock()
        self._shot: Shot | None = None
        self._stopping = threading.Event()
        self._opened = threading.Event()
        self._first_error: DeviceError | None = None
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._trouble = ""
        self._ended = False
        self._grabbed = self._dropped = self._openings = self._width = self._height = 0

    # --- any thread ---

    def start(self) -> None:
        """Open the source and grab.

        Raises:
            DeviceError: it cannot be opened.
        """
        if not self._settings.source:
            raise DeviceError(
                "no camera: the parameter source is empty; give an index, a device path, a video file or a URL"
            )
        self._thread.start()
        if not self._opened.wait(OPEN_S):
            raise DeviceError(
                f"camera '{self._settings.source}' has not opened within {OPEN_S:.0f} s; check that no other program"
                " uses it"
            )
        if self._first_error is not None:
            raise self._first_error

    def stop(self) -> None:
        """Release the source. A driver that blocks in a read is left until the process ends."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def take(self) -> Shot | None:
        """Return the newest frame once; ``None`` if there is no new one."""
        with self._lock:
            shot, self._shot = self._shot, None
        return shot

    def health(self) -> CameraHealth:
        """Return the current state."""
        return CameraHealth(
            self._trouble, self._ended, self._grabbed, self._dropped, self._openings, self._width, self._height
        )

    # --- grabbing thread ---

    def _run(self) -> None:
        backoff = Backoff(self._settings.reopen_after_s, self._settings.reopen_at_most_s)
        while not self._stopping.is_set():
            try:
                capture = self._open()
            except DeviceError as error:
                if not self._opened.is_set():
                    self._first_error = error
                    self._opened.set()
                    return
                self._say(str(error))
            else:
                self._opened.set()
                before = self._grabbed
                try:
                    self._grab(capture)
                finally:
                    capture.release()
                if self._ended or self._stopping.is_set():
                    self._on_news()
                    return
                if self._grabbed > before:
                    backoff.succeeded()
                self._say(f"camera '{self._settings.source}' sends no more frames")
            self._stopping.wait(backoff.next_s())

    def _open(self) -> cv2.VideoCapture:
        settings = self._settings
        if settings.is_file and not Path(settings.source).is_file():
            raise DeviceError(
                f"camera '{settings.source}': no such file; give an index, a device path, a video file or a URL"
            )
        if settings.source.startswith("/dev/") and not os.path.exists(settings.source):
            raise DeviceError(f"camera '{settings.source}': no such device; see `aecf doctor` for those there are")
        timeout_ms = int(settings.silent_after_s * 1000)
        if settings.is_device:
            capture = cv2.VideoCapture(
                int(settings.source) if settings.source.isdecimal() else settings.source, cv2.CAP_V4L2
            )
        elif settings.is_file:
            capture = cv2.VideoCapture(settings.source)
        else:
            capture = cv2.VideoCapture(
                settings.source,
                cv2.CAP_FFMPEG,
                [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms],
            )
        if not capture.isOpened():
            capture.release()
            raise DeviceError(
                f"camera '{settings.source}' does not open; check that it is plugged in, readable "
                "and not in use by another program"
            )
        if settings.is_device:
            for name, value in device_properties(settings):
                capture.set(name, value)
        self._openings += 1
        return capture

    def _grab(self, capture: cv2.VideoCapture) -> None:
        """Grab until the source fails or ends, or the camera is stopped."""
        pace = _Pace(self._file_period_s(capture)) if self._settings.is_file else None
        frames = 0
        while not self._stopping.is_set():
            if pace is not None:
                self._stopping.wait(pace.wait_s(time.monotonic()))
            if not capture.grab():
                if pace is None or not frames:
                    return
                if not self._settings.loop:
                    self._ended = True
                    return
                frames = 0
                capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
                continue
            stamp_ns = self._now_ns()
            decoded, image = capture.retrieve()
            if not decoded:
                return
            frames += 1
            self._put(Shot(stamp_ns, image))

    def _file_period_s(self, capture: cv2.VideoCapture) -> float:
        own_hz = capture.get(cv2.CAP_PROP_FPS)
        return 1.0 / (self._settings.rate_hz or (own_hz if own_hz > 0 else DEFAULT_FILE_RATE_HZ))

    def _put(self, shot: Shot) -> None:
        with self._lock:
            self._dropped += self._shot is not None
            self._shot = shot
        self._height, self._width = shot.image.shape[:2]
        self._grabbed += 1
        self._trouble = ""
        self._on_news()

    def _say(self, trouble: str) -> None:
        self._trouble = trouble
        self._on_news()


def device_properties(settings: CameraSettings) -> list[tuple[int, float]]:
    """OpenCV properties and values, the pixel format first, because in V4L2 it decides which sizes and rates exist.

    The number of buffers is left alone. With one, the driver has none to fill between two grabs and loses frames. With
    several, the newest frame is still the one that is kept, because the grabbing thread takes every frame.
    """
    code = cv2.VideoWriter.fourcc(*settings.fourcc) if settings.fourcc else 0
    wanted = (
        (cv2.CAP_PROP_FOURCC, code),
        (cv2.CAP_PROP_FRAME_WIDTH, settings.width),
        (cv2.CAP_PROP_FRAME_HEIGHT, settings.height),
        (cv2.CAP_PROP_FPS, settings.rate_hz),
    )
    return [(name, value) for name, value in wanted if value]


class _Pace:
    """Times of the frames of a video file; a reader that falls behind by more than one frame starts over."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._next_s: float | None = None

    def wait_s(self, now_s: float) -> float:
        if self._next_s is None or now_s - self._next_s > self._period_s:
            self._next_s = now_s
        wait_s = max(0.0, self._next_s - now_s)
        self._next_s += self._period_s
        return wait_s


def silence_libraries() -> None:
    """Keep OpenCV and FFmpeg from writing to the terminal.

    Call it before the first capture, in a process that does nothing else with them.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
