"""Labeled moments of a recording: the pipeline's own evidence, at the right times, with the labels of the recording."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aecf_ros.core.bundle import load_bundle
from aecf_ros.modalities.audio.spec import AudioSpec
from aecf_ros.modalities.image import evidence
from aecf_ros.modalities.image.spec import ImageSpec
from aecf_ros.replay.bag.discovery import content_digest, find_recordings
from aecf_ros.replay.bag.errors import BagError
from aecf_ros.replay.bag.reader import open_bag
from aecf_ros.replay.bag.topics import AudioFormat, Reading
from aecf_ros.replay.samples import BagUnit, scan_recording
from aecf_ros.replay.scoring.ground_truth import LabelError
from aecf_ros.runtime.backends import make_backend
from aecf_ros.runtime.pipeline import Pipeline
from test.replay.simulated import raw_record

CAMERA = ImageSpec(name="camera", kind="image", height=8, width=8)
AUDIO = AudioSpec(name="audio", kind="audio", rate_hz=800, window_s=0.5)
BOTH = (CAMERA, AUDIO)
CLASSES = {"red": 0, "green": 1, "blue": 2, "empty": -1}


def moments_of(
    path: Path,
    modalities: tuple = BOTH,
    stride_s: float = 0.5,
    settle_s: float | None = None,
    max_age_s: float = 0.35,
    named: dict | None = None,
) -> BagUnit:
    return scan_recording(path.name, path, modalities, Reading(named or {})).unit(
        modalities, CLASSES, stride_s, settle_s, max_age_s
    )


def everything(unit: BagUnit, size: int = 1000) -> tuple[dict[str, np.ndarray], np.ndarray]:
    batches = list(unit.batches(size))
    assert [len(b.present) for b in batches[:-1]] == [size] * (len(batches) - 1)
    return (
        {name: np.concatenate([b.inputs[name] for b in batches]) for name in batches[0].inputs},
        np.concatenate([b.present for b in batches]),
    )


def seconds(unit: BagUnit) -> list[float]:
    with open_bag(unit.path) as bag:
        return [round(float(s), 6) for s in (unit.moments_ns - bag.start_ns) / 1e9]


def chunks_of(recording: Any) -> list[Any]:
    return [m for _, topic, m in recording.messages if topic == "/audio"]


def without_stamp(recording: Any) -> None:
    chunks_of(recording)[20].header.stamp.sec = chunks_of(recording)[20].header.stamp.nanosec = 0


def clock_stepped_back(recording: Any) -> None:
    for chunk in chunks_of(recording)[16:]:
        ns = chunk.header.stamp.sec * 10**9 + chunk.header.stamp.nanosec - 320_000_000
        chunk.header.stamp.sec, chunk.header.stamp.nanosec = divmod(ns, 10**9)


class Listening:
    """A backend that keeps the newest sample it was given of each modality."""

    def __init__(self, bundle: Any) -> None:
        self._inner = make_backend("onnxruntime", bundle)
        self.given: dict[str, np.ndarray] = {}

    def encode(self, name: str, sample: np.ndarray) -> np.ndarray:
        self.given[name] = sample.copy()
        return self._inner.encode(name, sample)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.parametrize(
    "spoil",
    [lambda recording: None, without_stamp, clock_stepped_back],
    ids=["sound", "one zero stamp", "clock stepped back"],
)
@pytest.mark.parametrize("rate_hz", [800, 1600])
def test_a_moment_gives_what_the_pipeline_gives_its_encoders(
    new_recording: Callable, tiny_bundle: Path, tmp_path: Path, rate_hz: int, spoil: Callable
) -> None:
    recording = new_recording().info(0, rate_hz=rate_hz).label(0, "red")
    period_s = 80 / rate_hz
    for i in range(round(6 / period_s)):
        recording.jpeg(i * period_s + 0.01, "red" if i % 3 else "blue").sound(i * period_s, "green")
    for i, chunk in enumerate(chunks_of(recording)):
        chunk.header = recording.header((i - 1) * period_s)
    spoil(recording)
    bundle = load_bundle(tiny_bundle)
    unit = moments_of(recording.write(tmp_path / "bag"), bundle.manifest.modalities, stride_s=0.23, settle_s=0.6)
    listening = Listening(bundle)
    pipeline, due, given = Pipeline(bundle.manifest, listening), list(unit.moments_ns), []
    with open_bag(unit.path) as bag:
        info = None
        for one in [*bag.messages(["/camera/image", "/audio", "/audio_info"]), None]:
            while due and (one is None or due[0] < one.log_ns):
                used = [m.used for m in pipeline.step(int(due.pop(0))).modalities]
                given.append(
                    [listening.given[name] if u else None for name, u in zip(("camera", "audio"), used, strict=True)]
                )
            if one is not None and one.topic == "/audio_info":
                info = bag.deserialize(one)
            elif one is not None:
                pipeline.observe(
                    "camera" if "camera" in one.topic else "audio",
                    raw_record(bag.deserialize(one), info, one.log_ns),
                    one.log_ns,
                )
    inputs, present = everything(unit, 3)
    camera, audio = (iter(inputs[name]) for name in ("camera", "audio"))
    compared = 0
    for (seen, heard), (sees, hears) in zip(given, present, strict=True):
        picture, sound = next(camera) if sees else None, next(audio) if hears else None
        np.testing.assert_array_equal(picture, seen.reshape(8, 8, 3))
        if (
            sound is not None and heard is not None
        ):  # the pipeline trusts a stream later than its window is whole, or earlier
            np.testing.assert_array_equal(
                sound, np.clip(np.round(heard.ravel() * 32768), -32768, 32767).astype(np.int16)
            )
            compared += np.abs(heard).max() > 0.5
    assert ("/audio: 1 messages cannot be used" in "".join(unit.problems)) == (spoil is without_stamp)
    assert len(given) == 24 and present[:, 0].all() and compared >= (24 if spoil.__name__ == "<lambda>" else 18)


def test_moments_keep_to_their_span_and_wait_until_the_label_has_settled(red_then_blue: Path) -> None:
    unit = moments_of(red_then_blue, stride_s=1.0)  # the window of 0.5 s and 0.25 s after a change at 0 and at 5 s
    assert seconds(unit) == [0.75, 1.75, 2.75, 3.75, 4.75, 5.75, 6.75, 7.75, 8.75, 9.75]
    assert unit.labels.tolist() == [0] * 5 + [2] * 5 and unit.clusters.tolist() == [0] * 5 + [1] * 5
    inputs, present = everything(unit, 4)
    assert present.all() and inputs["camera"].dtype == np.uint8 and inputs["audio"].dtype == np.int16
    assert (inputs["camera"].reshape(10, 64, 3).mean(1).argmax(1) == unit.labels).all()
    assert seconds(moments_of(red_then_blue, stride_s=2.0, settle_s=0.0)) == [0.0, 2.0, 4.0, 5.0, 7.0, 9.0]


def test_a_label_of_nothing_is_nothing_and_an_empty_one_has_no_moments(new_recording: Callable, tmp_path: Path) -> None:
    recording = new_recording().info(0).label(0, "red").label(2, "").label(4, "empty").label(6, "red")
    for i in range(80):
        recording.image(i * 0.1, "red")
    unit = moments_of(
        recording.write(tmp_path / "bag"), stride_s=1.0, settle_s=0.5, named={"audio": "none"}, modalities=BOTH
    )
    assert seconds(unit) == [0.5, 1.5, 4.5, 5.5, 6.5, 7.5] and unit.labels.tolist() == [0, 0, -1, -1, 0, 0]
    assert unit.clusters.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_csv_beside_a_recording_comes_before_its_label_topic(
    red_then_blue: Path, new_recording: Callable, tmp_path: Path
) -> None:
    path = new_recording().info(0).scene(0, 4, "red").write(tmp_path / "drive")
    (tmp_path / "drive.csv").write_text("start_s,end_s,label\n0,2,green\n2,3,green\n3.5,90,blue\n")
    unit = moments_of(path, stride_s=1.0, settle_s=0.0)
    assert unit.labels.tolist() == [1, 1, 1, 2] and unit.clusters.tolist() == [
        0,
        0,
        0,
        1,
    ]  # spans that touch are one where the label is
    (path / "labels.csv").write_text("0,4,red\n")
    assert moments_of(path).labels.tolist() == unit.labels[:0].tolist() + [1] * 5  # NAME.csv is the nearer one
    (tmp_path / "drive.csv").unlink()
    assert set(moments_of(path).labels.tolist()) == {0}
    (path / "labels.csv").write_text("1700000000,1700000004,red\n")
    with pytest.raises(
        LabelError, match=r"no span begins in the 4\.0 s of drive; count seconds from its first message"
    ):
        moments_of(path)


def test_a_camera_that_stops_is_missing_until_it_sends_again(new_recording: Callable, tmp_path: Path) -> None:
    recording = new_recording().info(0).label(0, "red")
    for i in range(60):
        recording.sound(i * 0.1, "red")
        if not 20 <= i < 40:
            recording.image(i * 0.1, "red")
    unit = moments_of(recording.write(tmp_path / "bag"), stride_s=0.25, settle_s=1.0)
    _, present = everything(unit)
    for at_s, (camera, audio) in zip(seconds(unit), present, strict=True):
        assert audio and camera == (not 1.9 + 0.35 < at_s < 4.0), at_s


def test_sound_is_missing_until_nine_tenths_of_its_window_were_received(
    new_recording: Callable, tmp_path: Path
) -> None:
    recording = new_recording().info(0).label(0, "red")
    for i in range(60):
        recording.image(i * 0.1, "red")
        if not 20 <= i < 30:
            recording.sound(i * 0.1 + 0.001, "red")
    unit = moments_of(recording.write(tmp_path / "bag"), stride_s=0.1, settle_s=0.05)
    _, present = everything(unit)
    silent = [at_s for at_s, heard in zip(seconds(unit), present[:, 1], strict=True) if not heard]
    # The first 0.1 s of sound arrive at 0.001 s. From 1.901 to 3.001 s nothing does: 0.35 s and a chunk too long.
    assert silent == pytest.approx([0.05, 0.15, 0.25, 0.35, *np.arange(2.45, 3.4, 0.1)], abs=1e-6)


def test_frames_that_no_moment_needs_are_not_decoded(red_then_blue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr(
        evidence, "decode_image", lambda raw, real=evidence.decode_image: decoded.append(raw) or real(raw)
    )
    unit = moments_of(red_then_blue, stride_s=1.0)
    everything(unit)
    assert len(decoded) == len(unit.labels) == 10


def test_of_a_broken_frame_only_that_is_lost_and_said(new_recording: Callable, tmp_path: Path) -> None:
    recording = new_recording().info(0).label(0, "red")
    for i in range(40):
        recording.jpeg(i * 0.1, "red").sound(i * 0.1, "red")
    broken = [m for _, topic, m in recording.messages if topic == "/camera/image"][20:22]
    for message in broken:
        message.data = message.data[:20]
    unit = moments_of(recording.write(tmp_path / "bag"), stride_s=0.1, settle_s=1.0)
    _, present = everything(unit)
    assert present.all()  # as in the pipeline, the frame before is the newest evidence
    assert (
        len(unit.problems) == 1
        and "/camera/image: 2 messages cannot be used, the first at 2.00 s: jpeg of 20 bytes" in unit.problems[0]
    )


def test_sound_that_nothing_describes_is_missing_unless_its_format_is_said(
    new_recording: Callable, tmp_path: Path
) -> None:
    recording = new_recording().label(0, "red")
    for i in range(20):
        recording.image(i * 0.1, "red").sound(i * 0.1, "red")
    path = recording.write(tmp_path / "bag")
    unit = moments_of(path)
    inputs, present = everything(unit)
    assert present[:, 0].all() and not present[:, 1].any() and inputs["audio"].shape == (0, 400)
    assert "/audio: 18 messages cannot be used" in unit.problems[0] and "no AudioInfo has arrived" in unit.problems[0]
    assert scan_recording("bag", path, BOTH).undescribed == ["audio"]
    scan = scan_recording("bag", path, BOTH, Reading(audio_format=AudioFormat("S16LE", 800, 1)))
    said = scan.unit(BOTH, CLASSES, 0.5, None, 0.35)
    assert not scan.undescribed and everything(said)[1].all() and said.problems == [] and said.digest != unit.digest


def test_a_recording_that_was_cut_off_is_used_up_to_there(new_recording: Callable, tmp_path: Path) -> None:
    recording = new_recording().info(0).scene(0, 8, "red")
    for i in range(160):  # several chunks of a megabyte, of which a cut leaves some
        recording.add(i * 0.05, "/padding", recording.make("std_msgs/msg/String", "x" * 30_000))
    path = recording.write(tmp_path / "bag")
    whole = len(moments_of(path).labels)
    file = next(path.glob("*.mcap"))
    (tmp_path / "cut.mcap").write_bytes(file.read_bytes()[: file.stat().st_size * 6 // 10])
    unit = moments_of(tmp_path / "cut.mcap")
    _, present = everything(unit)
    assert 3 < len(unit.labels) == len(present) < whole and present.all()
    assert unit.problems == [] and "cut.mcap: is cut off" in unit.known[0]


@pytest.mark.parametrize("at", np.linspace(0, 1, 16).tolist())
def test_lengths_that_cannot_be_true_end_a_recording_and_nothing_else(
    red_then_blue: Path, tmp_path: Path, at: float
) -> None:
    content = bytearray(next(red_then_blue.glob("*.mcap")).read_bytes())
    start = round(at * (len(content) - 9))
    content[start : start + 9] = b"\xff" * 9
    (tmp_path / "odd.mcap").write_bytes(content)
    try:
        unit = moments_of(tmp_path / "odd.mcap")
    except BagError as error:
        assert "\n" not in str(error) and "odd.mcap" in str(error)
    else:
        assert sum(len(batch.present) for batch in unit.batches(7)) == len(unit.labels)


def test_units_travel_to_another_process_and_are_read_again(red_then_blue: Path) -> None:
    unit = moments_of(red_then_blue)
    first, again = everything(unit, 5), everything(pickle.loads(pickle.dumps(unit)), 3)
    np.testing.assert_array_equal(first[0]["camera"], again[0]["camera"])
    np.testing.assert_array_equal(first[0]["audio"], again[0]["audio"])


def test_the_digest_follows_what_the_moments_are_and_nothing_else(
    red_then_blue: Path, new_recording: Callable, tmp_path: Path
) -> None:
    digest = moments_of(red_then_blue).digest
    copy = tmp_path / "elsewhere" / "named_otherwise"
    copy.mkdir(parents=True)
    for file in red_then_blue.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert moments_of(copy).digest == digest
    larger = ImageSpec(name="camera", kind="image", height=16, width=8)
    longer = AudioSpec(name="audio", kind="audio", rate_hz=800, window_s=0.6)
    others = [
        moments_of(red_then_blue, stride_s=0.4),
        moments_of(red_then_blue, settle_s=0.7),
        moments_of(red_then_blue, max_age_s=0.3),
        moments_of(red_then_blue, (larger, AUDIO)),
        moments_of(red_then_blue, (CAMERA, longer), settle_s=0.75),
        moments_of(red_then_blue, named={"audio": "none"}),
        moments_of(new_recording().info(0).scene(0, 5, "red").scene(5, 10, "green").write(tmp_path / "other")),
    ]
    assert len({digest, *(u.digest for u in others)}) == 8


def test_a_modality_without_a_topic_is_missing_and_several_topics_are_refused(
    new_recording: Callable, tmp_path: Path
) -> None:
    deaf = new_recording().info(0).label(0, "red").image(0, "red").image(1, "red").write(tmp_path / "deaf")
    scan = scan_recording("deaf", deaf, BOTH)
    assert list(scan.missing) == ["audio"] and dict(scan.topics.streams) == {"camera": "/camera/image"}
    two = (
        new_recording()
        .info(0)
        .sound(0, "red")
        .image(0, "red", "/left")
        .image(0, "red", "/right")
        .write(tmp_path / "two")
    )
    with pytest.raises(
        BagError, match=r"several topics fit \(/left, /right\); name one with data\.topics\.camera=/\.\.\."
    ):
        scan_recording("two", two, BOTH)
    assert scan_recording("two", two, BOTH, Reading({"camera": "/right"})).topics.streams["camera"] == "/right"
    assert list(scan_recording("deaf", deaf, BOTH, Reading({"camera": "/right"})).missing) == ["camera", "audio"]


def test_a_folder_of_recordings_is_found_in_every_form(new_recording: Callable, tmp_path: Path) -> None:
    def record(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        return new_recording().info(0).write(path)

    single = next(record(tmp_path / "away" / "drive").glob("*.mcap"))
    data = tmp_path / "data"
    record(data / "monday" / "one")
    record(data / "monday" / "two")
    killed = record(data / "killed")
    (killed / "metadata.yaml").unlink()
    (data / "alone.mcap").write_bytes(single.read_bytes())
    (data / "loose").mkdir()
    (data / "loose" / "a.mcap").write_bytes(single.read_bytes())
    (data / "loose" / "b.mcap").write_bytes(single.read_bytes())
    (data / ".hidden").mkdir()
    (data / ".hidden" / "c.mcap").write_bytes(single.read_bytes())
    assert list(find_recordings(data)) == [
        "alone.mcap",
        "killed",
        "loose/a.mcap",
        "loose/b.mcap",
        "monday/one",
        "monday/two",
    ]
    assert list(find_recordings(single)) == [single.name] and list(find_recordings(data / "monday" / "one")) == ["one"]
    assert find_recordings(tmp_path / "no_such") == {}


def test_a_large_recording_is_told_apart_by_blocks_spread_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aecf_ros.replay.bag import discovery

    monkeypatch.setattr(discovery, "_WHOLE_BYTES", 1000)
    monkeypatch.setattr(discovery, "_BLOCK_BYTES", 10)
    content = np.random.default_rng(0).integers(0, 256, 20_000, dtype=np.uint8)
    one, two = tmp_path / "one.mcap", tmp_path / "two.mcap"
    one.write_bytes(content.tobytes())
    two.write_bytes(content.tobytes())
    assert content_digest(one) == content_digest(two)
    content[-1] += 1
    two.write_bytes(content.tobytes())
    assert content_digest(one) != content_digest(two)
    two.write_bytes(content[:-1].tobytes())
    assert content_digest(one) != content_digest(two)
