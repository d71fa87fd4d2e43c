"""What each kind of fault does to a message, checked by hand, on messages as rosbags reads them."""

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from aecf_ros.core.types import NANOSECONDS
from aecf_ros.modalities.audio.pcm import decode_audio
from aecf_ros.modalities.image.decode import decode_image
from aecf_ros.modalities.messages import DecodeError
from aecf_ros.replay.faults.base import Delivery
from aecf_ros.replay.faults.registry import effects, options_on
from aecf_ros.replay.faults.schedule import Fault, FaultError, FaultInjector
from aecf_ros.replay.faults.stamps import stamp_ns
from test.replay.simulated import INFO, START_NS, raw_record, stamp

STREAMS = {"camera": "image", "audio": "audio"}


def picture(level: int = 100, encoding: str = "rgb8", at_s: float = 0.0) -> Any:
    """32 x 24, the left half dark and the right half bright."""
    image = np.full((24, 32, 3), level, np.uint8)
    image[:, 16:] = min(255, 2 * level)
    header = stamp(START_NS + round(at_s * 1e9))
    if encoding == "jpeg":
        return SimpleNamespace(header=header, format="jpeg", data=cv2.imencode(".jpg", image)[1].ravel())
    return SimpleNamespace(
        header=header, height=24, width=32, encoding="rgb8", is_bigendian=0, step=96, data=image.ravel()
    )


def sound(level: float = 0.1, at_s: float = 0.0) -> Any:
    """0.1 s of a tone of 1 kHz."""
    samples = level * np.sin(2 * np.pi * 1000 * np.arange(1600) / 16_000)
    return SimpleNamespace(
        header=stamp(START_NS + round(at_s * 1e9)),
        audio=SimpleNamespace(data=np.round(samples * 32768).astype("<i2").view(np.uint8)),
    )


def struck(kind: str, message: Any, stream: str = "camera", at_s: float = 1.0, **options: float) -> list[Delivery]:
    injector = FaultInjector([Fault(stream=stream, kind=kind, start_s=0.5, end_s=20, **options)], STREAMS)
    return injector.apply(stream, at_s, message, INFO if stream == "audio" else None)


def image_of(delivery: Delivery) -> np.ndarray:
    return decode_image(raw_record(delivery.message, None, 0)).image.astype(float)


def samples_of(delivery: Delivery) -> np.ndarray:
    return decode_audio(raw_record(delivery.message, delivery.info, 0)).samples


def test_there_are_the_seventeen_kinds_of_the_design() -> None:
    assert list(effects()) == [
        "drop",
        "freeze",
        "delay",
        "jitter",
        "rate",
        "noise",
        "blur",
        "dark",
        "clip",
        "silence",
        "corrupt",
        "wrong_encoding",
        "wrong_size",
        "nan",
        "clock_jump",
        "zero_stamp",
        "out_of_order",
    ]


def through(
    kind: str,
    count: int = 200,
    period_s: float = 0.1,
    stream: str = "camera",
    start_s: float = 5.0,
    end_s: float = 15.0,
    **options: float,
) -> list[tuple[float, Delivery]]:
    """(time in the recording, delivery) of many messages, whose brightness or level counts them; what was kept back
    comes last.
    """
    injector = FaultInjector([Fault(stream=stream, kind=kind, start_s=start_s, end_s=end_s, **options)], STREAMS)
    out = []
    for i in range(count):
        at_s = round(i * period_s, 6)
        message = picture(i % 250, at_s=at_s) if stream == "camera" else sound(0.05 + 0.001 * i, at_s)
        out += [(d.source_s, d) for d in injector.apply(stream, at_s, message, INFO)]
    return out + [(d.source_s, d) for _, d in injector.flush()]


def test_drop_loses_its_share_within_its_span_only() -> None:
    sources = [s for s, _ in through("drop")]
    assert sources == [round(i * 0.1, 6) for i in range(200) if not 5 <= round(i * 0.1, 6) < 15]
    left = sum(5 <= s < 15 for s, _ in through("drop", share=0.3))
    assert 55 <= left <= 85


def test_freeze_repeats_the_last_picture_before_it_with_new_stamps() -> None:
    out = through("freeze")
    frozen = [d for s, d in out if 5 <= s < 15]
    assert {int(image_of(d)[0, 0, 0]) for d in frozen} == {49}
    assert [stamp_ns(d.message) for d in frozen] == [START_NS + round(s * 1e9) for s, _ in out if 5 <= s < 15]
    assert image_of(out[150][1])[0, 0, 0] == 150
    assert (
        len({int(image_of(d)[0, 0, 0]) for s, d in through("freeze", hold_s=2.0) if 5 <= s < 15}) == 5
    )  # at 5 s and every 2 s


def test_delay_is_later_and_the_backlog_comes_when_it_is_over() -> None:
    out = through("delay", delay_s=2.0)
    assert all(d.at_s == pytest.approx(min(s + 2, 15)) for s, d in out if 5 <= s < 15)
    assert all(d.at_s == s for s, d in out if not 5 <= s < 15)
    assert all(stamp_ns(d.message) == START_NS + round(s * 1e9) for s, d in out)


def test_jitter_varies_and_keeps_the_order() -> None:
    late = [d.at_s - s for s, d in through("jitter", jitter_s=0.5) if 5 <= s < 14]
    at = [d.at_s for _, d in through("jitter", jitter_s=0.5)]
    assert at == sorted(at) and np.mean(late) > 0.1 and max(late) <= 0.5 + 1e-9 and np.std(late) > 0.03


def test_rate_leaves_an_even_share() -> None:
    kept = [s for s, _ in through("rate", factor=0.25) if 5 <= s < 15]
    assert np.diff(kept) == pytest.approx(0.4) and len(kept) == 25


def test_noise_has_the_strength_that_was_asked_for() -> None:
    difference = image_of(struck("noise", picture(100), sigma_levels=12)[0]) - image_of(
        Delivery(0, picture(100), None, 0)
    )
    assert np.std(difference) == pytest.approx(12, rel=0.05) and abs(np.mean(difference)) < 1
    heard = [d for s, d in through("noise", stream="audio", snr_db=10, count=100, start_s=5) if s >= 5]
    noise = np.concatenate(
        [samples_of(d) - samples_of(Delivery(0, sound(0.05 + 0.001 * (50 + i)), INFO, 0)) for i, d in enumerate(heard)]
    )
    usual = np.mean([np.mean(samples_of(Delivery(0, sound(0.05 + 0.001 * i), INFO, 0)) ** 2) for i in range(50)])
    assert 10 * np.log10(usual / np.var(noise)) == pytest.approx(10, abs=0.3)


def test_blur_softens_the_edge_and_dark_takes_the_light() -> None:
    sharp, soft = image_of(Delivery(0, picture(), None, 0)), image_of(struck("blur", picture(), sigma_percent=10)[0])
    assert np.abs(np.diff(soft, axis=1)).max() < 0.3 * np.abs(
        np.diff(sharp, axis=1)
    ).max() and soft.mean() == pytest.approx(sharp.mean(), abs=2)
    np.testing.assert_allclose(image_of(struck("dark", picture(100), gain=0.2)[0]), 0.2 * sharp, atol=0.51)


def test_clip_is_cut_off_at_full_scale() -> None:
    loud = samples_of(struck("clip", sound(0.5), "audio", gain_db=12)[0])
    assert np.mean(np.abs(loud) > 0.999) == pytest.approx(2 / 3, abs=0.05)  # |sin| > 1/2
    assert image_of(struck("clip", picture(100), gain_db=6)[0]).max() == 255


def test_silence_leaves_the_noise_of_the_converter_and_without_it_nothing() -> None:
    quiet = samples_of(struck("silence", sound(0.5), "audio")[0])
    assert -90 < 20 * np.log10(np.sqrt(np.mean(quiet**2))) < -75 and len(np.unique(quiet)) > 2
    assert not samples_of(struck("silence", sound(0.1), "audio", attenuation_db=120, floor_dbfs=-100)[0]).any()


@pytest.mark.parametrize(
    ("kind", "stream", "words"),
    [
        ("corrupt", "camera", "need"),
        ("corrupt", "audio", "whole number"),
        ("wrong_encoding", "camera", "8UC7"),
        ("wrong_encoding", "audio", "mp3"),
        ("wrong_size", "camera", "need"),
        ("wrong_size", "audio", "whole number"),
        ("nan", "audio", "NaN"),
    ],
)
def test_a_spoiled_message_is_refused_for_what_was_done_to_it(kind: str, stream: str, words: str) -> None:
    (delivery,) = struck(kind, picture() if stream == "camera" else sound(), stream)
    raw = raw_record(delivery.message, delivery.info, 0)
    with pytest.raises(DecodeError, match=words):
        decode_image(raw) if stream == "camera" else decode_audio(raw)


@pytest.mark.parametrize("kind", ["corrupt", "wrong_encoding", "wrong_size"])
def test_a_spoiled_jpeg_is_refused_too(kind: str) -> None:
    (delivery,) = struck(kind, picture(encoding="jpeg"))
    with pytest.raises(DecodeError):
        decode_image(raw_record(delivery.message, None, 0))


@pytest.mark.parametrize("kind", ["noise", "blur", "dark", "clip"])
def test_a_jpeg_stays_a_jpeg(kind: str) -> None:
    (delivery,) = struck(kind, picture(encoding="jpeg"))
    assert (
        delivery.message.format == "jpeg"
        and delivery.message.data[:2].tobytes() == b"\xff\xd8"
        and image_of(delivery).shape == (24, 32, 3)
    )


def test_stamps_jump_vanish_and_swap() -> None:
    assert stamp_ns(struck("clock_jump", picture(), offset_s=-3.5)[0].message) == START_NS - 3_500_000_000
    assert stamp_ns(struck("clock_jump", sound(), "audio", offset_s=60)[0].message) == START_NS + 60 * NANOSECONDS
    assert stamp_ns(struck("zero_stamp", picture())[0].message) == 0
    swapped = [s for s, _ in through("out_of_order", start_s=1.0, end_s=1.4, count=20)]
    assert swapped[9:16] == pytest.approx([0.9, 1.1, 1.0, 1.3, 1.2, 1.4, 1.5]) and len(swapped) == 20


def test_a_message_kept_back_at_the_end_of_the_recording_is_not_forgotten() -> None:
    assert len(through("out_of_order", count=51, start_s=5.0, share=1.0)) == 51


def test_the_message_that_was_recorded_is_never_changed() -> None:
    for kind in effects():
        for stream, message in (("camera", picture()), ("audio", sound())):
            if options_on(kind, STREAMS[stream]) is not None:
                before = (stamp_ns(message), raw_record(message, INFO, 0).data.tobytes())
                struck(kind, message, stream)
                assert (stamp_ns(message), raw_record(message, INFO, 0).data.tobytes()) == before, kind


def test_faults_act_in_the_order_of_the_schedule_and_together() -> None:
    def brightness(*kinds: str) -> float:
        faults = [
            Fault(stream="camera", kind=k, start_s=0, end_s=9, **({"gain": 0.1} if k == "dark" else {"gain_db": 20}))
            for k in kinds
        ]
        return float(image_of(FaultInjector(faults, STREAMS).apply("camera", 1.0, picture(200))[0]).mean())

    assert brightness("dark", "clip") == pytest.approx(227.5, abs=3) and brightness("clip", "dark") == pytest.approx(
        26, abs=1
    )
    both = FaultInjector(
        [
            Fault(stream="camera", kind="drop", start_s=0, end_s=9),
            Fault(stream="audio", kind="zero_stamp", start_s=0, end_s=9),
        ],
        STREAMS,
    )
    assert (
        both.apply("camera", 1.0, picture()) == [] and stamp_ns(both.apply("audio", 1.0, sound(), INFO)[0].message) == 0
    )


def test_the_same_seed_is_the_same_fault_and_another_one_is_not() -> None:
    def lost(seed: int) -> set[float]:
        return {s for s, _ in through("drop", share=0.5, seed=seed)}

    assert lost(1) == lost(1) != lost(2)
    first, again, other = (image_of(struck("noise", picture(), seed=s)[0]) for s in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_severity_goes_from_nothing_to_everything() -> None:
    assert len(through("drop", severity=0)) == 200 and len(through("drop", severity=5)) == 100
    assert image_of(struck("noise", picture(), severity=0)[0]) == pytest.approx(
        image_of(Delivery(0, picture(), None, 0))
    )
    spread = [np.std(image_of(struck("noise", picture(), severity=s)[0])) for s in range(6)]
    assert spread == sorted(spread) and spread[5] > spread[0] + 20


@pytest.mark.parametrize(
    ("stream", "options", "words"),
    [
        ("camera", {"kind": "nan"}, "'nan' cannot act on 'camera', which carries image; use one of drop"),
        ("audio", {"kind": "blur"}, "'blur' cannot act on 'audio', which carries audio"),
        ("camera", {"kind": "noise", "snr_db": 3}, "use sigma_levels or severity"),
    ],
)
def test_what_cannot_act_on_a_stream_is_refused(stream: str, options: dict, words: str) -> None:
    with pytest.raises(FaultError, match=words):
        FaultInjector([Fault(stream=stream, start_s=0, end_s=1, **options)], STREAMS)


def test_a_stamp_that_is_not_there_cannot_jump() -> None:
    with pytest.raises(FaultError, match="no stamp"):
        struck("clock_jump", SimpleNamespace(data=np.zeros(320, np.uint8)), "audio")
