"""Microphones as a kind of sensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from aecf_ros.core.types import RawAudio
from aecf_ros.modalities.audio.evidence import AudioEvidence
from aecf_ros.modalities.audio.faults import CONTENT_FAULTS, MALFORMED, edit_audio
from aecf_ros.modalities.audio.messages import (
    DEFINITIONS,
    DESCRIBED_TYPES,
    INFO_TYPE,
    MESSAGE_TYPES,
    OTHER_DEFINITIONS,
    PcmInfo,
    read_audio,
)
from aecf_ros.modalities.audio.parameters import PARAMETERS, THRESHOLDS
from aecf_ros.modalities.audio.pcm import decode_audio
from aecf_ros.modalities.audio.spec import AudioEntry, AudioSpec
from aecf_ros.modalities.base import Modality, Raw

PROBED_WINDOW_S = 1.0
"""Sound in a recording has no size of its own."""
LONGEST_PROBED_S = 10.0


class Audio(Modality):
    """Sound: float32 ``(rate_hz * window_s,)`` mono in [-1, 1], stored as int16."""

    name: ClassVar = "audio"
    sensor: ClassVar = "audio"
    entry: ClassVar = AudioEntry
    spec: ClassVar = AudioSpec
    thresholds: ClassVar = THRESHOLDS
    message_types: ClassVar = MESSAGE_TYPES
    definitions: ClassVar = (DEFINITIONS, OTHER_DEFINITIONS)
    info_type: ClassVar = INFO_TYPE
    described_types: ClassVar = DESCRIBED_TYPES
    parameters: ClassVar = PARAMETERS
    evidence: ClassVar = AudioEvidence
    type_fields: ClassVar = {INFO_TYPE: "sample_format", MESSAGE_TYPES["plain"]: "data"}
    type_parameter: ClassVar = "message"
    content_faults: ClassVar = CONTENT_FAULTS
    malformed: ClassVar = MALFORMED
    column_names: ClassVar = ("sound", "audio")
    file_suffixes: ClassVar = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".opus", ".au")

    def read(self, message: Any, info: Any | None, received_ns: int) -> RawAudio:
        return read_audio(message, info, received_ns)

    def default_info(self, options: Mapping[str, Any]) -> PcmInfo | None:
        if not options["sample_format"]:
            return None
        return PcmInfo(str(options["sample_format"]), int(options["rate_hz"]), int(options["channels"]))

    def probe(self, raw: Raw) -> dict[str, Any]:
        assert isinstance(raw, RawAudio)
        return {"rate_hz": decode_audio(raw).rate_hz, "window_s": PROBED_WINDOW_S}

    def edit(self, message: Any, info: Any | None, change: Callable[[np.ndarray], np.ndarray]) -> Any:
        return edit_audio(message, info, change)

    def read_file(self, file: Path, spec: AudioSpec) -> np.ndarray:
        from aecf_ros.modalities.audio.files import read_window

        return read_window(file, spec)

    def probe_file(self, file: Path) -> dict[str, Any] | None:
        from aecf_ros.modalities.audio.files import file_length

        rate_hz, frames = file_length(file) or (0, 0)
        return {"rate_hz": rate_hz, "window_s": min(frames / rate_hz, LONGEST_PROBED_S)} if frames else None

    def sizes_of_input(self, shape: tuple[int, ...], notes: Callable[[], Mapping[str, Any]]) -> dict[str, Any] | None:
        if len(shape) != 1:
            return None
        sizes = notes()
        return {"rate_hz": round(sizes["rate_hz"]), "window_s": sizes["window_s"]}

    def stored(self, sample: np.ndarray) -> np.ndarray:
        return np.clip(np.round(sample * 32768.0), -32768, 32767).astype(np.int16)

    @property
    def corruptions(self) -> ModuleType:
        from aecf_ros.modalities.audio import corruptions

        return corruptions


AUDIO = Audio()
