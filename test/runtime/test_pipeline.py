"""Predictions go on, whether messages arrive or not. Times are in seconds; both clocks agree unless stated."""

import tracemalloc
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aecf_ros.core.bundle import load_bundle
from aecf_ros.core.types import NANOSECONDS, Prediction, RawAudio, RawImage, StreamState
from aecf_ros.health.thresholds import StreamThresholds
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.runtime.backends import make_backend
from aecf_ros.runtime.base import HeadOutput
from aecf_ros.runtime.pipeline import WARM_UP_MAX_RUNS, WARM_UP_RUNS, Pipeline, PipelineConfig
from aecf_ros.runtime.trace import KEPT, Trace

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
NOISE = np.random.default_rng(0)
TONES_HZ = {"red": 50.0, "green": 100.0, "blue": 200.0}


def ns(time_s: float) -> int:
    return round(time_s * NANOSECONDS)


def frame(at_s: float, label: str = "red", side: int = 8) -> RawImage:
    """A frame of the color of a label, with the noise of a sensor, which is never twice the same."""
    noisy = np.abs(COLORS[label] - np.abs(NOISE.normal(0, 2, (side, side, 3))))
    return RawImage(ns(at_s), ns(at_s), "rgb8", side, side, 3 * side, noisy.astype(np.uint8).tobytes())


def sound(at_s: float, label: str = "red", duration_s: float = 0.1, rate_hz: int = 800, channels: int = 1) -> RawAudio:
    """A piece of the endless tone of a label, from ``at_s`` on."""
    time_s = at_s + np.arange(round(duration_s * rate_hz)) / rate_hz
    tone = 30_000 * np.sin(2 * np.pi * TONES_HZ[label] * time_s) + NOISE.normal(0, 30, len(time_s))
    tone = np.round(tone).astype("<i2")
    return RawAudio(ns(at_s), ns(at_s), "S16LE", rate_hz, channels, np.repeat(tone, channels).tobytes())


class CountingBackend:
    """A real backend that remembers what it was asked."""

    def __init__(self, bundle: Path) -> None:
        self._backend = make_backend("onnxruntime", load_bundle(bundle), "cpu")
        self.device = self._backend.device
        self.encoded: Counter[str] = Counter()
        self.samples: dict[str, np.ndarray] = {}

    def encode(self, modality: str, sample: np.ndarray) -> np.ndarray:
        self.encoded[modality] += 1
        self.samples[modality] = sample
        return self._backend.encode(modality, sample)

    def fuse(self, embeddings: Mapping[str, np.ndarray], present: Sequence[bool]) -> HeadOutput:
        return self._backend.fuse(embeddings, present)


class Robot:
    """Drives a pipeline as the node does: ``tell`` messages in time order, and read ``answers``."""

    def __init__(self, bundle: Path, **config: object) -> None:
        self.backend = CountingBackend(bundle)
        manifest = load_bundle(bundle).manifest
        if "audio" in manifest.names:  # the tones of these stories are hum
            config.setdefault("thresholds", {"audio": replace(MODALITIES["audio"].thresholds, hum_above=0)})
        self.pipeline = Pipeline(manifest, self.backend, PipelineConfig(**config))
        self.answers: list[tuple[float, Prediction]] = []
        self._step(0)

    def _step(self, now_ns: int) -> None:
        self.answers.append((now_ns / NANOSECONDS, self.pipeline.step(now_ns)))

    def wait(self, until_s: float) -> None:
        while (due_ns := self.pipeline.next_due_ns()) < ns(until_s):
            assert len(self.answers) < 10_000
            self._step(due_ns)

    def tell(self, at_s: float, stream: str, raw: RawImage | RawAudio) -> bool:
        self.wait(at_s)
        due = self.pipeline.observe(stream, raw, ns(at_s)).due
        if due:
            self._step(ns(at_s))
        return due

    def play(self, start_s: float, end_s: float, camera: str | None = None, audio: str | None = None) -> None:
        """Camera frames at 20 Hz and audio chunks of 0.1 s, each showing a label; a chunk arrives when it ends."""
        events = []
        if camera:
            events += [
                (start_s + i * 0.05, "camera", frame(start_s + i * 0.05, camera))
                for i in range(round((end_s - start_s) / 0.05))
            ]
        if audio:
            events += [
                (start_s + i * 0.1 + 0.101, "audio", sound(start_s + i * 0.1, audio))
                for i in range(round((end_s - start_s) / 0.1) - 1)
            ]
        for at_s, stream, raw in sorted(events, key=lambda e: e[0]):
            self.tell(at_s, stream, raw)
        self.wait(end_s)

    def between(self, start_s: float, end_s: float) -> list[Prediction]:
        return [p for at_s, p in self.answers if start_s <= at_s < end_s]

    @property
    def last(self) -> Prediction:
        return self.answers[-1][1]

    def longest_gap_s(self) -> float:
        return float(np.diff([at_s for at_s, _ in self.answers]).max())


def test_the_camera_leads_while_frames_arrive(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    robot.play(0.05, 3, camera="green", audio="green")
    later = robot.between(1, 3)
    assert len(later) == 40  # one for each frame, none for a chunk
    assert {p.label for p in later} == {"green"} and {p.subset for p in later} == {"camera+audio"}
    assert all(p.confidence > 0.99 and not p.abstain and p.abstain_reason == "" for p in later)
    assert later[0].prediction_set == ("green",) and later[0].coverage == 0.9 and later[0].model == "tiny"
    assert [m.label for m in later[0].modalities] == ["green", "green"]


def test_the_microphone_leads_when_the_camera_is_gone_and_the_camera_takes_over_again(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    robot.play(0.05, 2, camera="red", audio="red")
    robot.play(2, 5, audio="blue")
    alone = robot.between(3.5, 4.9)
    assert (
        14 <= len(alone) <= 29
    )  # one for each chunk of 0.1 s, and between them so that no two camera periods go without
    assert {p.label for p in alone} == {"blue"} and {p.subset for p in alone} == {"audio"}
    assert {p.modalities[0].state for p in alone} == {StreamState.DROPPED}
    assert all(
        p.modalities[0].label == "" and p.modalities[0].confidence == 0 and p.modalities[0].gate_weight == 0
        for p in alone
    )
    robot.play(5, 7, camera="green", audio="green")
    assert robot.between(5, 5.09)[-1].subset == "audio"  # hysteresis withholds the camera for two frames
    assert len(robot.between(6, 7)) == 20 and robot.last.subset == "camera+audio"
    assert max(np.diff([at_s for at_s, _ in robot.answers if at_s > 0.5])) <= 2 * 0.05


def test_a_red_camera_and_a_blue_microphone_disagree(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    robot.play(0.05, 2, camera="red", audio="blue")
    assert robot.last.agreement < 0.01 and set(robot.last.prediction_set) == {"red", "blue"}
    assert [m.label for m in robot.last.modalities] == ["red", "blue"]


@pytest.mark.parametrize("max_gap_s", [0.05, 0.2, 0.7])
def test_with_nothing_left_the_prior_goes_on_abstaining_at_most_a_gap_apart(
    tiny_bundle: Path, max_gap_s: float
) -> None:
    robot = Robot(tiny_bundle, max_gap_s=max_gap_s)
    robot.play(0.05, 1, camera="red", audio="red")
    robot.wait(10)
    left = robot.between(2.1, 10)
    assert len(left) == pytest.approx(7.9 / min(max_gap_s, 1.75 * 0.05), abs=2)
    assert robot.longest_gap_s() <= max_gap_s + 1e-6
    for p in left:
        np.testing.assert_allclose(p.probabilities, 1 / 3)
        assert p.abstain and p.abstain_reason == "no usable stream" and p.subset == "none"


@pytest.mark.parametrize(("stale_after_s", "dropped_after_s"), [(2.01, 4.02), (2.69, 2.69), (10 / 3, 20 / 3)])
def test_a_loss_is_predicted_with_at_the_moment_it_shows(
    tiny_bundle: Path, stale_after_s: float, dropped_after_s: float
) -> None:
    limits = StreamThresholds(stale_after_s, dropped_after_s)
    robot = Robot(tiny_bundle, thresholds={"camera": limits, "audio": limits}, max_gap_s=100)
    robot.tell(1, "camera", frame(1))
    robot.wait(20)
    states = [(round(at_s, 6), p.modalities[0].state.name) for at_s, p in robot.answers]
    stale = [] if stale_after_s == dropped_after_s else [(round(1 + stale_after_s, 6), "STALE")]
    assert states == [(0, "WAITING"), (1, "OK"), *stale, (round(1 + dropped_after_s, 6), "DROPPED")]


def test_it_abstains_below_the_least_confidence_also_where_the_model_would_not(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle, min_confidence=1.0)
    robot.play(0.05, 2, camera="green")
    assert robot.last.confidence > 0.99 and robot.last.abstain and robot.last.abstain_reason == "low confidence"
    robot.pipeline.configure(replace(robot.pipeline.config, min_confidence=0.9))
    robot.play(2, 3, camera="green")
    assert not robot.last.abstain and robot.last.abstain_reason == ""
    robot.wait(6)
    assert robot.last.abstain_reason == "no usable stream"  # what the model says comes first


def test_before_anything_came_the_prior_abstains(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    assert robot.last.abstain and {m.state for m in robot.last.modalities} == {StreamState.WAITING}
    assert not robot.backend.encoded


def test_nothing_is_due_before_the_first_step(tiny_bundle: Path) -> None:
    assert Pipeline(load_bundle(tiny_bundle).manifest, CountingBackend(tiny_bundle)).next_due_ns() is None


@pytest.mark.parametrize(
    ("stream", "raw", "words"),
    [
        ("camera", RawImage(0, 0, "rgb8", 8, 8, 24, b""), "empty"),
        ("camera", RawImage(0, 0, "rgb8", 8, 8, 23, bytes(192)), "step"),
        ("camera", RawImage(0, 0, "bayer_rgbw8", 8, 8, 8, bytes(64)), "bayer_rgbw8"),
        (
            "camera",
            RawImage(0, 0, "jpeg", 0, 0, 0, cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()[:-9]),
            "truncated",
        ),
        ("audio", RawAudio(0, 0, "S16LE", 800, 1, bytes(101)), "whole number"),
        ("audio", RawAudio(0, 0, "S20LE", 800, 1, bytes(100)), "S20LE"),
        ("audio", RawAudio(0, 0, "S16LE", 0, 1, bytes(100)), "0 Hz"),
        ("camera", RawAudio(0, 0, "S16LE", 800, 1, bytes(100)), "RawAudio on an image stream"),
        ("audio", RawImage(0, 0, "rgb8", 8, 8, 24, bytes(192)), "RawImage on an audio stream"),
    ],
)
def test_a_bad_message_is_counted_and_predictions_go_on(
    tiny_bundle: Path, stream: str, raw: RawImage | RawAudio, words: str
) -> None:
    robot = Robot(tiny_bundle)
    robot.play(0.05, 1, camera="red", audio="red")
    seen = robot.pipeline.observe(stream, raw, ns(1.0))
    assert not seen.due and words in seen.rejected and "\n" not in seen.rejected
    status = {s.name: s for s in robot.pipeline.statuses(ns(1.0))}[stream]
    assert status.rejected == 1 and status.state is StreamState.OK and words in status.reason
    for i in range(1, 3):
        robot.pipeline.observe(stream, raw, ns(1 + i * 0.01))
    rejected = robot.pipeline.step(ns(1.03))
    report = {m.name: m for m in rejected.modalities}[stream]
    assert report.state is StreamState.REJECTED and not report.used and report.gate_weight == 0
    assert rejected.label == "red" and rejected.confidence > 0.9  # by the other one


def test_a_message_that_could_not_even_be_read_is_counted(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    seen = robot.pipeline.reject("audio", "no AudioInfo", ns(1))
    assert (seen.due, seen.rejected) == (False, "no AudioInfo")
    assert robot.pipeline.statuses(ns(1))[1].state is StreamState.REJECTED


def test_a_publisher_that_leaves_hands_the_lead_over_at_once(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    robot.pipeline.publishers("camera", 1, ns(0))
    robot.play(0.05, 1, camera="red", audio="red")
    robot.pipeline.publishers("camera", 0, ns(1.0))
    assert robot.tell(1.01, "audio", sound(0.9, "red"))
    assert robot.last.subset == "audio"


def test_an_encoder_runs_only_when_its_stream_brought_something(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    for i in range(100):  # ten frames for each chunk
        robot.tell(1 + i * 0.01, "camera", frame(1 + i * 0.01))
        if i % 10 == 0:
            robot.tell(1 + i * 0.01, "audio", sound(1 + i * 0.01))
    assert robot.backend.encoded["camera"] == 100
    assert robot.backend.encoded["audio"] == 10
    robot.wait(1.3)
    assert robot.backend.encoded["camera"] == 100


def test_an_encoder_does_not_run_for_what_hysteresis_withholds(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    robot.tell(1, "camera", frame(1))
    robot.wait(5)
    before = robot.backend.encoded["camera"]
    robot.tell(5, "camera", frame(5))
    robot.tell(5.1, "camera", frame(5.1))
    assert robot.backend.encoded["camera"] == before
    robot.tell(5.2, "camera", frame(5.2, "blue"))
    assert robot.backend.encoded["camera"] == before + 1 and robot.last.label == "blue"


def test_warming_up_runs_every_graph_and_leaves_no_trace(tiny_bundle: Path) -> None:
    backend = CountingBackend(tiny_bundle)
    pipeline = Pipeline(load_bundle(tiny_bundle).manifest, backend)
    assert pipeline.warm_up() > 0
    assert WARM_UP_RUNS <= backend.encoded["camera"] == backend.encoded["audio"] <= WARM_UP_MAX_RUNS
    assert pipeline.step(0).subset == "none" and pipeline.statuses(0)[0].received == 0


def test_the_stamp_is_that_of_the_newest_evidence_used(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    robot.tell(1.0, "camera", frame(0.97))
    assert robot.last.stamp_ns == ns(0.97)
    robot.tell(1.05, "audio", sound(0.9))  # heard until 1.0
    robot.tell(1.06, "camera", frame(0.98))
    assert robot.last.stamp_ns == ns(1.0)
    assert [m.evidence_stamp_ns for m in robot.last.modalities] == [ns(0.98), ns(1.0)]
    robot.tell(1.30, "camera", frame(1.2))
    robot.tell(1.45, "camera", frame(1.42))
    robot.tell(1.65, "camera", frame(1.62))  # the sound is stale by now, and not used
    assert robot.last.subset == "camera" and robot.last.stamp_ns == ns(1.62)
    robot.tell(1.70, "audio", sound(1.6))  # newer than the frame, but not trusted yet
    robot.tell(1.71, "camera", frame(1.66))
    assert robot.last.subset == "camera" and robot.last.stamp_ns == ns(1.66)
    assert robot.last.modalities[1].evidence_stamp_ns == ns(1.7)


def test_the_stamp_without_evidence_is_the_node_time(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    assert robot.pipeline.step(ns(3), node_time_ns=ns(1_700_000_000)).stamp_ns == ns(1_700_000_000)
    assert robot.pipeline.step(ns(4)).stamp_ns == ns(4)


@pytest.mark.parametrize("rate_hz", [800, 8000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("label", ["red", "green", "blue"])
def test_sound_of_any_rate_gives_the_tone_at_the_rate_of_the_bundle(
    tiny_bundle: Path, rate_hz: int, channels: int, label: str
) -> None:
    robot = Robot(tiny_bundle)
    for i in range(15):
        robot.tell(1.1 + i * 0.1, "audio", sound(1 + i * 0.1, label, rate_hz=rate_hz, channels=channels))
    window = robot.backend.samples["audio"]
    assert window.shape == (400,) and window.dtype == np.float32
    assert np.abs(np.fft.rfft(window)).argmax() == TONES_HZ[label] / 2  # bins of 2 Hz
    assert np.abs(window).max() == pytest.approx(30_000 / 32_768, abs=0.02)
    assert robot.last.label == label
    assert robot.last.stamp_ns == ns(2.5)  # resampling holds nothing back


def test_the_rate_may_change_within_a_stream(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    for i in range(30):
        robot.tell(1.1 + i * 0.1, "audio", sound(1 + i * 0.1, "green", rate_hz=[800, 8000, 48_000][i // 10]))
    assert robot.last.label == "green" and robot.pipeline.statuses(ns(4))[1].rejected == 0


def test_a_sound_card_with_a_wrong_clock_does_not_drift_away_from_its_stamps(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    for i in range(3000):  # five minutes of chunks that take 0.1 % longer than their samples say
        at_s = 1 + i * 0.1001
        robot.tell(at_s + 0.1, "audio", sound(at_s, "green", rate_hz=8000))
    assert robot.last.modalities[1].evidence_stamp_ns == ns(at_s + 0.1)


def test_frames_of_another_size_are_resized(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    robot.tell(1, "camera", frame(1, "blue", side=100))
    assert robot.backend.samples["camera"].shape == (8, 8, 3) and robot.last.label == "blue"


def test_a_bundle_of_four_modalities_runs_and_the_first_live_one_leads(make_bundle: object) -> None:
    bundle = make_bundle({"front": "image", "rear": "image", "left": "audio", "right": "audio"})
    robot = Robot(bundle)
    for i in range(20):
        at_s = 1 + i * 0.1
        assert robot.tell(at_s, "front", frame(at_s, "red"))
        assert not robot.tell(at_s, "rear", frame(at_s, "red"))
        assert not robot.tell(at_s, "left", sound(at_s, "red"))
        assert not robot.tell(at_s, "right", sound(at_s, "blue"))
    assert robot.last.subset == "front+rear+left+right" and robot.last.label == "red"
    np.testing.assert_allclose([m.gate_weight for m in robot.last.modalities], 0.25)
    for i in range(20):
        at_s = 3 + i * 0.1
        robot.tell(at_s, "right", sound(at_s, "blue"))
    assert robot.last.subset == "right" and robot.last.label == "blue"
    assert robot.tell(5, "right", sound(5, "blue"))


def test_a_camera_alone_is_a_bundle_too(make_bundle: object) -> None:
    robot = Robot(make_bundle({"camera": "image"}))
    robot.tell(1, "camera", frame(1, "green"))
    assert robot.last.label == "green" and robot.last.subset == "camera"


def test_thresholds_for_an_unknown_modality_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(ValueError, match="lidar.*camera"):
        Robot(tiny_bundle, thresholds={"lidar": StreamThresholds()})


def test_a_gap_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="max_gap_s"):
        PipelineConfig(max_gap_s=0)


def test_an_unknown_stream_is_the_callers_mistake(tiny_bundle: Path) -> None:
    with pytest.raises(KeyError):
        Robot(tiny_bundle).pipeline.observe("lidar", frame(0), 0)


JPEG = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
PNG = cv2.imencode(".png", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
uint32 = st.one_of(st.integers(0, 20), st.integers(0, 2**32 - 1))
stamps = st.one_of(st.integers(0, 3 * NANOSECONDS), st.integers(-(2**31) * NANOSECONDS, 2**31 * NANOSECONDS))


def _spoil(parts: tuple[bytes, int, bytes, int]) -> bytes:
    whole, at, junk, end = parts
    return (whole[:at] + junk + whole[at + len(junk) :])[:end]


files = st.tuples(
    st.sampled_from([JPEG, PNG]), st.integers(0, len(JPEG)), st.binary(max_size=4), st.integers(0, 1000)
).map(_spoil)
images = st.builds(
    RawImage,
    stamp_ns=stamps,
    received_ns=stamps,
    height=uint32,
    width=uint32,
    step=uint32,
    big_endian=st.booleans(),
    encoding=st.one_of(
        st.sampled_from(
            [
                "rgb8",
                "bgr8",
                "rgba8",
                "bgra8",
                "mono8",
                "8UC1",
                "8UC3",
                "8UC4",
                "mono16",
                "rgb16",
                "bgr16",
                "uyvy",
                "yuyv",
                "nv12",
                "nv21",
                "bayer_rggb8",
                "bayer_grbg16",
                "jpeg",
                "png",
                "rgb8; jpeg compressed bgr8",
            ]
        ),
        st.text(max_size=10),
    ),
    data=st.one_of(files, st.binary(max_size=300), st.just(bytes(5000))),
)
sounds = st.builds(
    RawAudio,
    stamp_ns=stamps,
    received_ns=stamps,
    sample_format=st.one_of(
        st.sampled_from(["U8", "S8", "S16LE", "S16BE", "S24LE", "S24BE", "S32LE", "S32BE", "F32LE", "F32BE"]),
        st.text(max_size=6),
    ),
    rate_hz=st.one_of(st.sampled_from([800, 1, 8000, 44_100, 384_000]), uint32),
    channels=st.one_of(st.integers(1, 3), st.integers(-2, 255)),
    data=st.one_of(st.binary(max_size=300), st.just(bytes(4800))),
    coding=st.sampled_from(["wave", "", "mp3"]),
)


@pytest.fixture(scope="module")
def fuzzed_robot(tiny_bundle: Path) -> Robot:
    """One robot that lives through every example."""
    robot = Robot(tiny_bundle)
    robot.now_ns = 0
    return robot


@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=st.one_of(images, sounds), crossed=st.integers(0, 30), wait_ns=st.integers(0, NANOSECONDS // 10))
def test_no_message_whatever_it_holds_raises(
    fuzzed_robot: Robot, raw: RawImage | RawAudio, crossed: int, wait_ns: int
) -> None:
    stream = "camera" if isinstance(raw, RawImage) is (crossed > 0) else "audio"
    fuzzed_robot.now_ns += wait_ns
    seen = fuzzed_robot.pipeline.observe(stream, raw, fuzzed_robot.now_ns)
    assert seen.rejected is None or (seen.rejected and "\n" not in seen.rejected and len(seen.rejected) < 300)
    answer = fuzzed_robot.pipeline.step(fuzzed_robot.now_ns)
    assert np.isfinite(answer.probabilities).all() and answer.probabilities.sum() == pytest.approx(1, abs=1e-4)


def test_memory_does_not_grow_with_the_messages(tiny_bundle: Path) -> None:
    robot, rng = Robot(tiny_bundle), np.random.default_rng(0)

    def live(start: int, end: int) -> None:
        for i in range(start, end):
            side, rate_hz = int(rng.integers(8, 400)), int(rng.choice([800, 8000, 16_000, 48_000]))
            at_s = 1 + i * 0.05 + float(rng.choice([0, 0, 0, 30.0, -30.0]))  # stamps jump now and then
            robot.pipeline.observe("camera", frame(at_s, side=side), ns(1 + i * 0.05))
            robot.pipeline.observe(
                "audio", sound(at_s, rate_hz=rate_hz, duration_s=float(rng.choice([0.05, 1.0]))), ns(1 + i * 0.05)
            )
            robot.pipeline.observe("camera", RawImage(0, 0, f"unknown{i}", 8, 8, 24, bytes(100_000)), ns(1 + i * 0.05))
            robot.pipeline.step(ns(1 + i * 0.05))

    live(0, 100)
    tracemalloc.start()
    try:
        live(100, 500)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 2_000_000


@pytest.mark.parametrize("lost", ["camera", "audio", "both"])
def test_no_two_camera_periods_pass_without_a_prediction_whatever_stops_even_with_long_chunks(
    tiny_bundle: Path, lost: str
) -> None:
    robot = Robot(tiny_bundle, max_gap_s=0.2)
    events = [(1 + i / 30, "camera", lambda t: frame(t)) for i in range(300)]
    events += [(1.5 + i * 0.5, "audio", lambda t: sound(t - 0.5, duration_s=0.5)) for i in range(20)]
    for at_s, stream, make in sorted(events, key=lambda e: e[0]):
        if not (4 <= at_s < 8 and lost in (stream, "both")):
            robot.tell(at_s, stream, make(at_s))
    robot.wait(11)
    assert max(np.diff([at_s for at_s, _ in robot.answers if at_s > 1.5])) <= 2 / 30


def test_a_camera_that_repeats_its_last_frame_is_left_out_and_taken_back(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    robot.play(0.05, 2, camera="red", audio="red")
    copied = frame(2)
    for i in range(30):
        robot.tell(2 + i * 0.05, "camera", replace(copied, stamp_ns=ns(2 + i * 0.05), received_ns=ns(2 + i * 0.05)))
        robot.tell(2.01 + i * 0.05, "audio", sound(1.9 + i * 0.05, "red", duration_s=0.05))
    assert robot.last.modalities[0].state is StreamState.FROZEN and robot.last.subset == "audio"
    for i in range(4):
        robot.tell(3.5 + i * 0.05, "camera", frame(3.5 + i * 0.05))
    assert robot.last.modalities[0].state is StreamState.OK


@pytest.mark.parametrize(("delay_s", "used"), [(0.7, True), (1.5, False)])
def test_late_sound_is_used_until_it_is_too_old(tiny_bundle: Path, delay_s: float, used: bool) -> None:
    robot = Robot(tiny_bundle)
    robot.play(0.05, 2, camera="red", audio="red")
    for i in range(20):  # from now on sound arrives late by the delay; there was none in between
        at_s = 2 + delay_s + i * 0.1
        robot.tell(at_s, "camera", frame(at_s))
        robot.tell(at_s + 0.001, "audio", replace(sound(1.9 + i * 0.1), received_ns=ns(at_s + 0.001)))
    microphone = robot.last.modalities[1]
    assert microphone.state is StreamState.LATE, robot.pipeline.statuses(ns(2 + delay_s + 2))[1]
    assert microphone.used is used


def test_a_frame_with_a_stamp_that_cannot_be_is_not_evidence(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    robot.play(0.05, 1, camera="red")
    robot.tell(1.0, "camera", replace(frame(1, "blue"), stamp_ns=ns(50)))
    assert robot.last.modalities[0].state is StreamState.CLOCK_FAULT
    assert robot.last.modalities[0].evidence_stamp_ns < ns(1)
    for i in range(3):
        robot.tell(1.05 + i * 0.05, "camera", frame(1.05 + i * 0.05, "red"))
    assert robot.last.label == "red" and robot.last.subset == "camera"


@pytest.mark.parametrize("back_s", [0.3, 5.0])
def test_a_clock_that_jumps_back_empties_the_window_and_sound_goes_on_in_its_new_time(
    tiny_bundle: Path, back_s: float
) -> None:
    limits = replace(MODALITIES["audio"].thresholds, hum_above=0, late_after_s=0)
    robot = Robot(tiny_bundle, thresholds={"audio": limits})
    for i in range(20):
        robot.tell(6.1 + i * 0.1, "audio", sound(6 + i * 0.1, "red"))
    robot.tell(8.1, "audio", sound(8 - back_s, "blue"))
    assert robot.last.modalities[1].state is StreamState.CLOCK_FAULT
    for i in range(1, 4):
        robot.tell(8.1 + i * 0.1, "audio", sound(8 + i * 0.1 - back_s, "blue"))
    assert robot.last.label == "blue" and robot.last.confidence > 0.9  # nothing red is left
    assert robot.last.stamp_ns == pytest.approx(ns(8.4 - back_s), abs=ns(0.01))
    assert not robot.backend.samples["audio"][:80].any()  # 0.4 s of blue in a window of 0.5 s


def test_a_looping_recording_under_simulated_time_starts_anew(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    robot.play(0.05, 3, camera="red", audio="red")
    robot.pipeline.reset()
    assert robot.pipeline.next_due_ns() is None
    again = robot.pipeline.step(ns(0))
    assert again.subset == "none" and {m.state for m in again.modalities} == {StreamState.WAITING}
    robot.pipeline.observe("camera", frame(0.05, "blue"), ns(0.05))
    first = robot.pipeline.step(ns(0.05))
    assert first.label == "blue" and first.subset == "camera" and first.stamp_ns == ns(0.05)


def test_sound_without_a_header_is_told_by_its_status(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    robot.tell(1.1, "audio", replace(sound(1), headless=True))
    assert robot.pipeline.statuses(ns(1.1))[1].headless and robot.pipeline.statuses(ns(1.1))[1].age_s is None


def test_content_is_measured_after_the_prediction_and_the_states_are_the_same_without_being_asked_to_settle(
    tiny_bundle: Path,
) -> None:
    def states(settles: bool) -> list[tuple[StreamState, ...]]:
        global NOISE
        NOISE = np.random.default_rng(5)
        robot, seen = Robot(tiny_bundle), []
        for i in range(80):
            at_s = 1 + i * 0.05
            dark = replace(frame(at_s), data=np.abs(NOISE.normal(0, 2, (8, 8, 3))).astype(np.uint8).tobytes())
            robot.tell(at_s, "camera", dark if i >= 40 else frame(at_s))
            if settles:
                robot.pipeline.settle()
            seen.append(tuple(m.state for m in robot.last.modalities))
        return seen

    asked = states(settles=True)
    assert asked == states(settles=False)
    assert asked[39][0] is StreamState.OK and asked[-1][0] is StreamState.DEGRADED


def test_sound_that_comes_less_often_than_frames_is_encoded_before_the_frame_that_needs_it(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    robot.play(0.05, 2, camera="red", audio="red")
    robot.pipeline.settle()
    before = robot.backend.encoded["audio"]
    robot.pipeline.observe("audio", sound(1.9, "red"), ns(2.001))
    robot.pipeline.settle()
    assert robot.backend.encoded["audio"] == before + 1
    robot.tell(2.05, "camera", frame(2.05))
    assert robot.backend.encoded["audio"] == before + 1 and robot.last.subset == "camera+audio"


def test_sound_in_many_small_chunks_is_encoded_once_for_a_frame(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    for i in range(300):
        robot.tell(1 + i * 0.01, "audio", sound(1 + i * 0.01, duration_s=0.01))
        robot.pipeline.settle()
        if i % 5 == 0:
            robot.tell(1 + i * 0.01, "camera", frame(1 + i * 0.01))
            robot.pipeline.settle()
    assert (
        robot.backend.encoded["audio"] <= robot.backend.encoded["camera"] + 30
    )  # the camera leads from its first frames on


def test_every_stage_is_traced_where_it_runs(tiny_bundle: Path) -> None:
    robot = Robot(tiny_bundle)
    robot.play(0.05, 1, camera="red", audio="red")
    robot.pipeline.settle()
    medians = robot.pipeline.trace.medians_ms()
    assert list(medians) == [
        "transport camera",
        "transport audio",
        "decode camera",
        "decode audio",
        "preprocess camera",
        "preprocess audio",
        "encoder camera",
        "encoder audio",
        "head",
        "check camera",
        "check audio",
    ]
    assert (
        medians["transport camera"] == 0 and medians["transport audio"] == -100
    )  # stories receive sound when it begins
    assert all(0 < ms < 1000 for stage, ms in medians.items() if not stage.startswith("transport"))


def test_a_trace_keeps_the_newest_durations_only() -> None:
    trace = Trace()
    for ns_taken in range(10 * KEPT):
        trace.add("head", ns_taken)
    assert trace.medians_ms() == {"head": (10 * KEPT - 1 - (KEPT - 1) / 2) / 1e6}
