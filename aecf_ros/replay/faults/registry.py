"""Every kind of fault by its name in a faults file, and what it can act on."""

from __future__ import annotations

from collections.abc import Mapping

from aecf_ros.modalities.faults import Option
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.replay.faults.base import Effect
from aecf_ros.replay.faults.content import Content
from aecf_ros.replay.faults.delivery import ClockJump, Delay, Drop, Freeze, Jitter, OutOfOrder, Rate
from aecf_ros.replay.faults.malformed import Malformed, ZeroStamp


def effects() -> dict[str, type[Effect]]:
    """What makes each kind of fault, by its name in a faults file."""
    kinds = MODALITIES.values()
    return {
        "drop": Drop,
        "freeze": Freeze,
        "delay": Delay,
        "jitter": Jitter,
        "rate": Rate,
        **{fault: Content for kind in kinds for fault in kind.content_faults},
        **{fault: Malformed for kind in kinds for fault in kind.malformed},
        "clock_jump": ClockJump,
        "zero_stamp": ZeroStamp,
        "out_of_order": OutOfOrder,
    }


def options_on(fault: str, stream_kind: str) -> Mapping[str, Option] | None:
    """The options of a fault on a kind of stream; ``None`` where it cannot act on it."""
    return effects()[fault].options_on(fault, stream_kind)


def options_of(fault: str) -> dict[str, Option]:
    """The options of a fault on any kind of stream."""
    return {name: option for kind in MODALITIES for name, option in (options_on(fault, kind) or {}).items()}


def faults_on(stream_kind: str) -> list[str]:
    """The faults that can act on a kind of stream."""
    return [fault for fault in effects() if options_on(fault, stream_kind) is not None]
