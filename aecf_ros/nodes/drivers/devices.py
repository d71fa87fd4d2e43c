"""Shared parts of the drivers: choice of a device, waits between attempts, stamps from a sample count. No ROS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from aecf_ros.core.types import NANOSECONDS


class DeviceError(RuntimeError):
    """A device cannot be opened; the message says which, why and what to do."""


@dataclass(slots=True)
class Backoff:
    """Exponential backoff: the first wait, doubled after each attempt up to the longest."""

    first_s: float
    longest_s: float
    _next_s: float = 0.0

    def next_s(self) -> float:
        """How long to wait before the next attempt."""
        wait_s = self._next_s or self.first_s
        self._next_s = min(2 * wait_s, self.longest_s)
        return wait_s

    def succeeded(self) -> None:
        """Start again with the shortest wait."""
        self._next_s = 0.0


@dataclass(frozen=True, slots=True)
class InputDevice:
    """A microphone as the system lists it."""

    index: int
    name: str
    channels: int
    rate_hz: float


def choose_device(devices: Sequence[InputDevice], wanted: str) -> InputDevice:
    """Find a device by index, by full name, or by a part of the name that is unique.

    Raises:
        DeviceError: no device or several devices match; the message lists all.
    """
    if not devices:
        raise DeviceError("no microphone: the system lists no input device; plug one in, and see `aecf doctor`")
    listed = ", ".join(f"{d.index} '{d.name}'" for d in devices)
    if wanted.isdecimal():
        matches = [d for d in devices if d.index == int(wanted)]
    else:
        part = wanted.lower()
        matches = [d for d in devices if d.name.lower() == part] or [d for d in devices if part in d.name.lower()]
    if not matches:
        close = get_close_matches(wanted, [d.name for d in devices], n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise DeviceError(f"no microphone named '{wanted}'; {hint}input devices: {listed}")
    if len(matches) > 1:
        raise DeviceError(
            f"microphone '{wanted}' is {' or '.join(repr(d.name) for d in matches)}; give more of the name, or the"
            f" index; input devices: {listed}"
        )
    return matches[0]


class SampleClock:
    """Time of a sample from the sample count, corrected slowly towards the measured times.

    Measured times carry the jitter of the measurement, so they are not used directly. A correction of ``gain`` times
    the error for each block (more during the first blocks) follows the drift between the device's crystal and the
    clock. An error beyond ``jump_s`` means that samples were lost or the clock was set, and the count starts over.
    """

    def __init__(self, rate_hz: int, gain: float = 0.02, jump_s: float = 0.2) -> None:
        self._rate_hz = rate_hz
        self._gain = gain
        self._jump_ns = jump_s * NANOSECONDS
        self._sample: int | None = None
        self._ns = 0
        self._blocks = 0

    def reset(self) -> None:
        """Stamp the next block as measured."""
        self._sample = None

    def stamp_ns(self, first_sample: int, measured_ns: int) -> int:
        """Return the time of sample ``first_sample``, measured at ``measured_ns``."""
        predicted_ns = (
            measured_ns
            if self._sample is None
            else self._ns + (first_sample - self._sample) * NANOSECONDS // self._rate_hz
        )
        error_ns = measured_ns - predicted_ns
        if self._sample is None or abs(error_ns) > self._jump_ns:
            self._ns, self._blocks = measured_ns, 1
        else:
            self._blocks += 1
            self._ns = predicted_ns + round(max(self._gain, 1.0 / self._blocks) * error_ns)
        self._sample = first_sample
        return self._ns
