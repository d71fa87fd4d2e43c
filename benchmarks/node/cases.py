"""What is measured: one case is an encoder, a camera, and what the sensors do."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Traffic:
    """What the publisher sends: ``jpeg`` or raw rgb8 frames, sound of 0.1 s a message.

    ``audio_late_s`` is how old sound is when it is sent, beside its own length. A rate of 0 is silence.
    """

    width: int = 640
    height: int = 480
    jpeg: bool = False
    camera_hz: float = 30.0
    audio_hz: float = 10.0
    audio_late_s: float = 0.0

    def as_dict(self) -> dict[str, float | int | bool]:
        return asdict(self)


@dataclass(frozen=True)
class Case:
    """``encoder`` is a key of models.BODIES, or ``shipped``, for pictures of ``side`` pixels."""

    name: str
    encoder: str
    traffic: Traffic = Traffic()
    side: int = 224


@dataclass(frozen=True)
class Effort:
    """How long is measured: each repetition plays ``warm_s`` that do not count, then ``window_s`` that do."""

    repetitions: int
    warm_s: float
    window_s: float


LARGE, FULL_HD = Traffic(1280, 720), Traffic(1920, 1080)
NOMINAL = "mobilenet 640x480"
OVERLOAD = "overload"
DELIVERY = "mobilenet 1920x1080"
AUDIO_STOPPED = "audio stopped"

CASES = (
    Case(NOMINAL, "mobilenet"),
    Case("mobilenet 1280x720", "mobilenet", LARGE),
    Case(DELIVERY, "mobilenet", FULL_HD),
    Case("mobilenet 640x480 jpeg", "mobilenet", Traffic(jpeg=True)),
    Case("resnet18 640x480", "resnet18"),
    Case("shipped 640x480", "shipped"),
    Case(AUDIO_STOPPED, "mobilenet", Traffic(audio_hz=0)),
    Case("audio 1 s late", "mobilenet", Traffic(audio_late_s=1.0)),
    Case("camera stopped", "mobilenet", Traffic(camera_hz=0)),
    Case(OVERLOAD, "resnet18", Traffic(camera_hz=60), side=288),
)
QUICK = tuple(case for case in CASES if case.name in (NOMINAL, AUDIO_STOPPED))
