"""Sound files as what an encoder takes: mono at its rate, and of a longer file the loudest window."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
import soxr

from aecf_ros.modalities.audio.spec import AudioSpec
from aecf_ros.modalities.messages import DecodeError

_HOPS = 8
"""Steps of a window in which the loudest one is looked for."""


def read_window(path: Path, spec: AudioSpec) -> np.ndarray:
    """One window of a sound file that libsndfile reads: int16 ``(rate_hz * window_s,)`` mono.

    Of a longer file it is the window with the most energy, on a grid of an eighth of a window: a label says what
    sounds in a file,
    and most files hold silence too. A shorter one is preceded by zeros, as the pipeline's window is before enough
    was heard.

    Raises:
        DecodeError: it cannot be read, holds no sample, or NaN.
    """
    try:
        with soundfile.SoundFile(path) as file:
            rate_hz, due = file.samplerate, round(file.samplerate * spec.window_s)
            start = _loudest(file, due) if file.frames > due else 0
            file.seek(start)
            samples = file.read(due, dtype="float32", always_2d=True).mean(axis=1, dtype=np.float32)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise DecodeError(f"not a sound file that libsndfile reads ({str(error).splitlines()[0][-80:]})") from None
    if not len(samples):
        raise DecodeError("sound of 0 samples")
    if not np.isfinite(samples).all():
        raise DecodeError("sound with NaN or infinite samples")
    if rate_hz != spec.rate_hz:
        samples = np.asarray(soxr.resample(samples, rate_hz, spec.rate_hz), np.float32)
    window = np.zeros(spec.sample_shape, np.int16)
    kept = samples[: len(window)]
    window[len(window) - len(kept) :] = np.clip(np.round(kept * 32768.0), -32768, 32767)
    return window


def file_length(path: Path) -> tuple[int, int] | None:
    """(rate in Hz, samples of one channel) by the header of a sound file; ``None`` if it cannot be read."""
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, RuntimeError, OSError):
        return None
    return info.samplerate, info.frames


def lengths_s(paths: Iterable[Path]) -> list[float]:
    """Seconds of those that can be read, by their headers."""
    return [length[1] / length[0] for path in paths if (length := file_length(path)) is not None]


def _loudest(file: soundfile.SoundFile, due: int) -> int:
    """Where the loudest ``due`` samples of a longer file begin; read piece by piece, however long it is."""
    hop = max(due // _HOPS, 1)
    energies = [
        float(np.square(block.mean(axis=1)).sum()) for block in file.blocks(hop, dtype="float32", always_2d=True)
    ]
    whole = np.cumsum([0.0, *energies])
    last = max(len(energies) - _HOPS, 0)
    start = int(np.argmax(whole[_HOPS : _HOPS + last + 1] - whole[: last + 1]))
    return min(start * hop, int(file.frames) - due)
