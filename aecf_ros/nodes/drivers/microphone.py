"""A microphone through PortAudio that survives being unplugged. No ROS.

One thread makes all calls to PortAudio. The callback, which runs in PortAudio's thread, only queues blocks.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from aecf_ros.core.types import NANOSECONDS
from aecf_ros.nodes.drivers.devices import Backoff, DeviceError, InputDevice, SampleClock, choose_device

QUEUE_S = 5.0
AHEAD_S = 1.0
CLOSE_S = 2.0
FIRST_SOUND_S = 3.0
LONGEST_LAG_S = 10.0


@dataclass(frozen=True, slots=True)
class MicrophoneSettings:
    """What to record, and when to give up on a device.

    ``device`` is an index, a name, a part of a name, or empty for the system's default.
    """

    device: str
    rate_hz: int
    channels: int
    chunk_ms: int
    open_within_s: float
    silent_after_s: float
    reopen_after_s: float
    reopen_at_most_s: float

    @property
    def block_frames(self) -> int:
        """Samples of each channel in one block."""
        return max(1, self.rate_hz * self.chunk_ms // 1000)


@dataclass(frozen=True, slots=True)
class Sound:
    """One block: interleaved S16LE, and the node time of its first sample."""

    stamp_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Health:
    """State of a microphone. ``trouble`` is empty while sound arrives; ``fatal`` if only a new process can help."""

    device: str
    trouble: str
    fatal: bool
    overflows: int
    dropped: int
    openings: int


@dataclass(frozen=True, slots=True)
class _Queued:
    opening: int
    first_sample: int
    measured_ns: int
    data: bytes
    overflowed: bool


def portaudio() -> ModuleType:
    """The ``sounddevice`` module.

    Raises:
        DeviceError: it or the PortAudio library is not installed.
    """
    try:
        import sounddevice  # loads PortAudio and looks for devices, so only where a microphone is wanted
    except ModuleNotFoundError:
        raise DeviceError(
            "no sound input: the Python package sounddevice is not installed; pip install sounddevice"
        ) from None
    except OSError as error:
        raise DeviceError(f"no sound input: {error}; apt install libportaudio2") from None
    except Exception as error:  # PortAudioError, which cannot be named before the import
        raise DeviceError(
            f"no sound input: {error}; check whether `arecord -l` lists a device and the sound server runs"
        ) from None
    return sounddevice


def input_devices(sounddevice: ModuleType) -> list[InputDevice]:
    """Microphones that PortAudio found when it was last initialized."""
    return [
        InputDevice(index, d["name"], d["max_input_channels"], d["default_samplerate"])
        for index, d in enumerate(sounddevice.query_devices())
        if d["max_input_channels"] > 0
    ]


class Microphone:
    """Records in a thread until stopped; opens the device again whenever it fails.

    Args:
        now_ns: node time; called from PortAudio's thread.
        on_news: called from either thread when ``take`` or ``health`` has something new.
    """

    def __init__(self, settings: MicrophoneSettings, now_ns: Callable[[], int], on_news: Callable[[], None]) -> None:
        self._settings = settings
        self._now_ns = now_ns
        self._on_news = on_news
        self._queue: deque[_Queued] = deque(maxlen=max(2, int(QUEUE_S * 1000 / settings.chunk_ms)))
        self._clock = SampleClock(settings.rate_hz)
        self._taken_opening = 0
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._opened = threading.Event()
        self._first_error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="microphone", daemon=True)
        self._sounddevice: Any = None
        self._stream: Any = None
        self._device = settings.device
        self._trouble = ""
        self._fatal = False
        self._overflows = self._dropped = self._openings = 0
        self._samples = 0
        self._heard_s = self._opened_s = 0.0
        self._fault = ""

    # --- any thread ---

    def start(self) -> None:
        """Open the device and record.

        Raises:
            DeviceError: it cannot be opened.
        """
        stderr = os.dup(2)
        try:
            self._thread.start()
            if not self._opened.wait(self._settings.open_within_s):
                os.dup2(stderr, 2)  # sounddevice mutes it while PortAudio looks at the devices
                self._forget_portaudio()
                raise DeviceError(
                    f"microphone '{self._device}' has not opened within {self._settings.open_within_s:g} s; "
                    "unplug it and plug it in again"
                )
        finally:
            os.close(stderr)
        if self._first_error is not None:
            raise self._first_error

    def stop(self) -> None:
        """Close the device; no callback runs afterwards, unless PortAudio hangs."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(2 * CLOSE_S)

    def take(self) -> list[Sound]:
        """Return the blocks since the last call, oldest first. Call it from one thread only."""
        sounds = []
        while self._queue:
            queued = self._queue.popleft()
            if queued.opening != self._taken_opening or queued.overflowed:
                self._clock.reset()
                self._taken_opening = queued.opening
            sounds.append(Sound(self._clock.stamp_ns(queued.first_sample, queued.measured_ns), queued.data))
        return sounds

    def health(self) -> Health:
        """Return the current state."""
        return Health(self._device, self._trouble, self._fatal, self._overflows, self._dropped, self._openings)

    # --- PortAudio's thread ---

    def _on_block(self, stream: Any, data: Any, frames: int, time_info: Any, status: Any) -> None:
        now_ns, now_s = self._now_ns(), time.monotonic()
        allowed = (now_s - self._opened_s + AHEAD_S) * self._settings.rate_hz
        if self._samples > allowed:
            # An ALSA device without a source may deliver zeros as fast as they are read, which would starve this
            # process.
            self._fault = f"it delivers more samples than {self._settings.rate_hz} Hz allows"
            self._queue.clear()
            self._wake.set()
            raise self._sounddevice.CallbackAbort
        lag_s = stream.time - time_info.inputBufferAdcTime
        if not 0.0 <= lag_s <= LONGEST_LAG_S:  # some ALSA plugins give no usable time; the block then ends now
            lag_s = frames / self._settings.rate_hz
        if len(self._queue) == self._queue.maxlen:
            self._dropped += 1
        overflowed = bool(status.input_overflow)
        self._overflows += overflowed
        self._queue.append(
            _Queued(self._openings, self._samples, now_ns - round(lag_s * NANOSECONDS), bytes(data), overflowed)
        )
        self._samples += frames
        self._heard_s = now_s
        if self._trouble:
            self._trouble = ""
        self._on_news()

    # --- recording thread ---

    def _run(self) -> None:
        try:
            self._sounddevice = portaudio()  # here, because looking at the devices can block
        except DeviceError as error:
            self._refuse(error)
            return
        backoff = Backoff(self._settings.reopen_after_s, self._settings.reopen_at_most_s)
        while not self._stopping.is_set():
            try:
                if self._opened.is_set():
                    self._look_again()
                self._open()
            except (DeviceError, self._sounddevice.PortAudioError) as error:
                problem = str(error)
                if not self._opened.is_set():
                    known = isinstance(error, DeviceError)
                    self._refuse(error if known else DeviceError(f"microphone '{self._device}': {problem}"))
                    return
            else:
                self._opened.set()
                problem = self._watch()
                if self._samples:
                    backoff.succeeded()
                if not self._released(problem):
                    return
            if self._stopping.is_set():
                return
            self._say(problem)
            self._stopping.wait(backoff.next_s())

    def _refuse(self, error: Exception) -> None:
        """The first opening failed."""
        self._first_error = error
        self._opened.set()

    def _released(self, problem: str) -> bool:
        """Report a problem and close the stream; return whether PortAudio released it."""
        if problem:
            self._say(problem)
        if self._close():
            return True
        self._forget_portaudio()
        self._say(f"{problem}; PortAudio does not release it", fatal=True)
        return False

    def _open(self) -> None:
        settings, sounddevice = self._settings, self._sounddevice
        devices = input_devices(sounddevice)
        default = sounddevice.default.device[0]
        wanted = settings.device or (
            str(default) if any(d.index == default for d in devices) else str(devices[0].index) if devices else ""
        )
        device = choose_device(devices, wanted)
        self._device = device.name
        if settings.channels > device.channels:
            raise DeviceError(
                f"microphone '{device.name}' has {device.channels} channels, not {settings.channels}; set channels"
            )
        self._samples = 0
        self._fault = ""
        self._openings += 1

        def on_block(data: Any, frames: int, time_info: Any, status: Any) -> None:
            self._on_block(stream, data, frames, time_info, status)

        try:
            stream = sounddevice.RawInputStream(
                samplerate=settings.rate_hz,
                channels=settings.channels,
                dtype="int16",
                blocksize=settings.block_frames,
                device=device.index,
                callback=on_block,
                finished_callback=self._wake.set,
            )
            self._stream = stream
            self._opened_s = self._heard_s = time.monotonic()
            self._wake.clear()
            stream.start()
        except sounddevice.PortAudioError as error:
            raise DeviceError(
                f"microphone '{device.name}' does not open at {settings.rate_hz} Hz, {settings.channels} channels:"
                f" {error}; its own rate is {device.rate_hz:.0f} Hz"
            ) from None

    def _watch(self) -> str:
        """Wait until the stream fails or the microphone is stopped; return what failed."""
        while not self._stopping.is_set():
            limit_s = (
                self._settings.silent_after_s if self._samples else max(FIRST_SOUND_S, self._settings.silent_after_s)
            )
            silent_s = time.monotonic() - self._heard_s
            if silent_s >= limit_s:
                return f"microphone '{self._device}' has sent nothing for {limit_s:g} s"
            self._wake.wait(limit_s - silent_s)
            if self._wake.is_set() and not self._stopping.is_set():
                return f"microphone '{self._device}' failed: {self._fault or 'PortAudio ended the stream'}"
        return ""

    def _close(self) -> bool:
        """Close the stream; return whether PortAudio did so in time (a driver may block in a read)."""

        def close() -> None:
            self._stream.abort(ignore_errors=True)
            self._stream.close(ignore_errors=True)

        closer = threading.Thread(target=close, name="close_microphone", daemon=True)
        closer.start()
        closer.join(CLOSE_S)
        return not closer.is_alive()

    def _forget_portaudio(self) -> None:
        """Do not terminate PortAudio at the end of the process, because it would hang."""
        if self._sounddevice is not None:
            atexit.unregister(self._sounddevice._exit_handler)

    def _look_again(self) -> None:
        """Initialize PortAudio again, which alone updates its list (spatialaudio/python-sounddevice issue 125)."""
        while self._sounddevice._initialized:
            self._sounddevice._terminate()
        self._sounddevice._initialize()

    def _say(self, trouble: str, fatal: bool = False) -> None:
        self._trouble, self._fatal = trouble, fatal
        self._on_news()
