"""Every kind of fault, one small class for each: what it does is said there."""

from __future__ import annotations

from collections.abc import Mapping

from aecf_ros.replay.faults.base import Effect
from aecf_ros.replay.faults.content import Blur, Clip, Dark, Noise, Silence
from aecf_ros.replay.faults.delivery import ClockJump, Delay, Drop, Freeze, Jitter, OutOfOrder, Rate
from aecf_ros.replay.faults.malformed import Corrupt, NotANumber, WrongEncoding, WrongSize, ZeroStamp

KINDS: Mapping[str, type[Effect]] = {
    "drop": Drop,
    "freeze": Freeze,
    "delay": Delay,
    "jitter": Jitter,
    "rate": Rate,
    "noise": Noise,
    "blur": Blur,
    "dark": Dark,
    "silence": Silence,
    "clip": Clip,
    "corrupt": Corrupt,
    "wrong_encoding": WrongEncoding,
    "wrong_size": WrongSize,
    "nan": NotANumber,
    "clock_jump": ClockJump,
    "zero_stamp": ZeroStamp,
    "out_of_order": OutOfOrder,
}
"""Every kind of fault by its name in a faults file."""
