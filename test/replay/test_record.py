"""`aecf replay`: the recording again, with what the node would have published, read back."""

import struct
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from aecf_ros.core.bundle import load_bundle
from aecf_ros.core.types import StreamState, StreamStatus
from aecf_ros.replay.bag.reader import open_bag
from aecf_ros.replay.bag.writer import RecordError, message_definitions, record
from aecf_ros.replay.faults.schedule import Fault
from aecf_ros.runtime.backends import make_backend
from aecf_ros.runtime.diagnostics import diagnose_stream
from aecf_ros.runtime.pipeline import Pipeline

LOST = Fault(stream="camera", kind="drop", start_s=4, end_s=7)


def recorded_again(
    bag_path: Path, model: Path, out: Path, faults: tuple[Fault, ...] = ()
) -> tuple[dict[str, int], dict[str, list[tuple[float, Any]]]]:
    """What `record` says it added, and every message of the file by topic with its time."""
    bundle = load_bundle(model)
    with open_bag(bag_path) as bag:
        start_ns = bag.start_ns
        added = record(
            bag,
            bag.choose_topics(bundle.manifest),
            Pipeline(bundle.manifest, make_backend("onnxruntime", bundle, "cpu")),
            out,
            faults,
        )
    found: dict[str, list[tuple[float, Any]]] = {}
    with AnyReader([out]) as reader:
        for connection, log_ns, data in reader.messages():
            found.setdefault(connection.topic, []).append(
                ((log_ns - start_ns) / 1e9, reader.deserialize(data, connection.msgtype))
            )
    return added, found


@pytest.fixture(scope="module")
def again(red_then_blue: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    return recorded_again(red_then_blue, tiny_bundle, tmp_path_factory.mktemp("out") / "deep" / "again.mcap", (LOST,))


def test_every_original_message_is_there_untouched_faults_or_not(again: tuple[dict, dict], red_then_blue: Path) -> None:
    with open_bag(red_then_blue) as bag:
        counts = Counter(r.topic for r in bag.messages())
    assert {topic: len(again[1][topic]) for topic in counts} == counts


def test_predictions_say_what_fed_them(again: tuple[dict, dict]) -> None:
    added, found = again
    predictions = found["/fusion_node/prediction"]
    assert added["/fusion_node/prediction"] == len(predictions) > 90
    lost = [m for at_s, m in predictions if 5.2 < at_s < 7]
    assert {m.modalities[0].state for m in lost} == {StreamState.DROPPED} and not any(
        m.modalities[0].used for m in lost
    )
    assert {m.label for at_s, m in predictions if 6 < at_s < 7} == {"blue"}
    last = predictions[-1][1]
    assert last.header.frame_id == "lens"
    assert (
        last.model == "tiny"
        and [m.name for m in last.modalities] == ["camera", "audio"]
        and last.probabilities.sum() == pytest.approx(1)
    )
    assert (
        last.header.stamp.sec * 10** 9 + last.header.stamp.nanosec + last.latency.sec * 10** 9 + last.latency.nanosec
        == pytest.approx(1_700_000_000_000_000_000 + predictions[-1][0] * 1e9, abs=1e3)
    )


def test_diagnostics_come_each_second_and_at_each_change(again: tuple[dict, dict]) -> None:
    diagnostics = again[1]["/diagnostics"]
    assert np.diff([at_s for at_s, _ in diagnostics]).max() <= 1.3
    levels = {status.name: status.level for at_s, m in diagnostics if 5.5 < at_s < 7 for status in m.status}
    assert (
        levels["fusion_node: camera"] == 2
        and levels["fusion_node: audio"] in (0, 1)
        and levels["fusion_node: inference"] == 0
    )
    assert any("DROPPED" in status.message for _, m in diagnostics for status in m.status)


def test_diagnostics_have_the_keys_of_the_node(again: tuple[dict, dict]) -> None:
    status = StreamStatus("camera", StreamState.OK, "", 0.1, 15.0, 1, 0, 15.0, 0.1, 0.35, 1.0, False)
    last = {s.name: [value.key for value in s.values] for s in again[1]["/diagnostics"][-1][1].status}
    assert last["fusion_node: camera"] == last["fusion_node: audio"] == list(diagnose_stream(status).values)
    assert last["fusion_node: inference"][:3] == ["model", "device", "predictions (messages)"]


def test_the_debug_picture_is_a_jpeg_of_what_the_pipeline_was_given(again: tuple[dict, dict]) -> None:
    _, message = again[1]["/fusion_node/debug_image"][-1]
    image = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
    assert message.format == "jpeg" and image.shape[1] == 320 and image[100, 160, 0] > 200 > image[100, 160, 2]  # blue


def test_every_topic_carries_its_definition_as_viewers_read_it(
    red_then_blue: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    recorded_again(red_then_blue, tiny_bundle, tmp_path / "again.mcap")
    data = (tmp_path / "again.mcap").read_bytes()
    with AnyReader([tmp_path / "again.mcap"]) as reader:
        formats = {c.topic: (c.msgdef.format.name, bool(c.msgdef.data)) for c in reader.connections}
    assert {"/fusion_node/prediction", "/diagnostics", "/fusion_node/debug_image", "/camera/image"} <= set(formats)
    assert set(formats.values()) == {("MSG", True)} and b"ros2msg" in data and b"ros2idl" not in data
    summary_at, _, _ = struct.unpack(
        "<QQI", data[-28:-8]
    )  # the footer; without a summary Foxglove reads the whole file first
    assert 0 < summary_at < len(data)


def test_two_files_are_the_same_in_what_they_say(red_then_blue: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    first, second = (
        recorded_again(red_then_blue, tiny_bundle, tmp_path / f"{i}.mcap", (LOST,))[1]["/fusion_node/prediction"]
        for i in range(2)
    )
    assert [(t, m.label, m.confidence, m.latency) for t, m in first] == [
        (t, m.label, m.confidence, m.latency) for t, m in second
    ]


def test_a_recording_with_predictions_keeps_them(
    again: tuple[dict, dict], red_then_blue: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    recorded_again(red_then_blue, tiny_bundle, tmp_path / "once.mcap")
    added, found = recorded_again(tmp_path / "once.mcap", tiny_bundle, tmp_path / "twice.mcap")
    assert (
        set(added) == {"/aecf_replay/prediction", "/aecf_replay/debug_image", "/diagnostics"}
        and "/fusion_node/prediction" in found
    )


def test_where_it_cannot_be_written(red_then_blue: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="not an .mcap file"):
        recorded_again(red_then_blue, tiny_bundle, tmp_path / "out.bag")
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot be written"):
        recorded_again(red_then_blue, tiny_bundle, tmp_path / "file" / "out.mcap")
    assert not list(tmp_path.glob(".out*"))


def test_the_definitions_are_found_where_an_installation_put_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert (message_definitions() / "FusedPrediction.msg").is_file()
    monkeypatch.setattr(
        "aecf_ros.replay.bag.writer.__file__", str(tmp_path / "site" / "aecf_ros" / "replay" / "bag" / "writer.py")
    )
    monkeypatch.setattr("sys.prefix", str(tmp_path / "environment"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "install"))
    with pytest.raises(RecordError, match="source the workspace"):
        message_definitions()
    folder = tmp_path / "install" / "share" / "aecf_msgs" / "msg"
    folder.mkdir(parents=True)
    for name in ("FusedPrediction.msg", "ModalityReport.msg"):
        (folder / name).write_text("")
    assert message_definitions() == folder
