"""Copy a recording and add what the node would have published: predictions, diagnostics and the debug image."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from aecf_ros.core.types import NANOSECONDS, Prediction, RawImage, StreamState
from aecf_ros.modalities.base import Raw
from aecf_ros.modalities.image.decode import decode_image
from aecf_ros.replay.bag.reader import Bag, RecordedMessage
from aecf_ros.replay.bag.topics import Topics
from aecf_ros.replay.faults.schedule import Fault
from aecf_ros.replay.report.overlay import draw_overlay
from aecf_ros.replay.scoring.driver import drive
from aecf_ros.runtime.diagnostics import Diagnostic, diagnose_inference, diagnose_stream
from aecf_ros.runtime.pipeline import Observation, Pipeline

NODE, NODE_IF_TAKEN = "fusion_node", "aecf_replay"
"""Name of the node in the added topics, and the name for a recording that already has topics of the node."""
DIAGNOSTICS = "/diagnostics"
DIAGNOSTICS_PERIOD_NS = NANOSECONDS
JPEG_QUALITY = 80
PREDICTION, DIAGNOSTIC_ARRAY, COMPRESSED = (
    "aecf_msgs/msg/FusedPrediction",
    "diagnostic_msgs/msg/DiagnosticArray",
    "sensor_msgs/msg/CompressedImage",
)
_DEFINITIONS = ("FusedPrediction.msg", "ModalityReport.msg")


class RecordError(ValueError):
    """A recording cannot be written; the message says what to do."""


def message_definitions() -> Path:
    """The folder of ``aecf_msgs``' definitions: beside the sources, or where an installation put them.

    Raises:
        RecordError: in none of those places.
    """
    beside = Path(__file__).resolve().parents[3] / "aecf_msgs" / "msg"
    prefixes = [*filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)), sys.prefix]
    installed = [
        Path(prefix) / "share" / package / "msg" for prefix in prefixes for package in ("aecf_msgs", "aecf_ros")
    ]
    for folder in (beside, *installed):
        if all((folder / name).is_file() for name in _DEFINITIONS):
            return folder
    raise RecordError(
        "the definitions of aecf_msgs were not found; source the workspace that aecf_msgs was built "
        "in, or run from the repository"
    )


def _our_types() -> Typestore:
    store = get_typestore(Stores.ROS2_JAZZY)
    folder = message_definitions()
    types: dict[str, Any] = {}
    for name in _DEFINITIONS:
        types |= get_types_from_msg((folder / name).read_text(encoding="utf-8"), f"aecf_msgs/msg/{Path(name).stem}")
    store.register(types)
    return store


class _Messages:
    """Our messages, as rosbags has them. ``published_ns`` is log time."""

    def __init__(self, store: Typestore, node: str) -> None:
        self._types = store.types
        self._node = node

    def _time(self, ns: int) -> Any:
        return self._types["builtin_interfaces/msg/Time"](ns // NANOSECONDS, ns % NANOSECONDS)

    def _duration(self, ns: int) -> Any:
        return self._types["builtin_interfaces/msg/Duration"](ns // NANOSECONDS, ns % NANOSECONDS)

    def _header(self, ns: int, frame_id: str = "") -> Any:
        return self._types["std_msgs/msg/Header"](self._time(ns), frame_id)

    def prediction(self, p: Prediction, published_ns: int, frame_id: str) -> Any:
        reports = [
            self._types["aecf_msgs/msg/ModalityReport"](
                name=r.name,
                state=int(r.state),
                used=r.used,
                gate_weight=r.gate_weight,
                age=self._duration(0 if r.evidence_stamp_ns is None else published_ns - r.evidence_stamp_ns),
                label=r.label,
                confidence=r.confidence,
            )
            for r in p.modalities
        ]
        return self._types[PREDICTION](
            header=self._header(p.stamp_ns, frame_id),
            model=p.model,
            label=p.label,
            class_id=p.class_id,
            confidence=p.confidence,
            probabilities=p.probabilities.astype(np.float32),
            prediction_set=list(p.prediction_set),
            coverage=p.coverage,
            agreement=p.agreement,
            gate_entropy=p.gate_entropy,
            abstain=p.abstain,
            abstain_reason=p.abstain_reason,
            modalities=reports,
            latency=self._duration(published_ns - p.stamp_ns),
        )

    def diagnostics(self, diagnostics: Sequence[Diagnostic], now_ns: int) -> Any:
        key_value = self._types["diagnostic_msgs/msg/KeyValue"]
        statuses = [
            self._types["diagnostic_msgs/msg/DiagnosticStatus"](
                level=d.level,
                name=f"{self._node}: {d.name}",
                message=d.message,
                hardware_id=d.hardware_id,
                values=[key_value(key=key, value=str(value)) for key, value in d.values.items()],
            )
            for d in diagnostics
        ]
        return self._types[DIAGNOSTIC_ARRAY](header=self._header(now_ns), status=statuses)

    def picture(self, raw: RawImage, prediction: Prediction, camera: str) -> Any:
        drawn = draw_overlay(decode_image(raw).image, prediction, camera)
        jpeg = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        return self._types[COMPRESSED](
            header=self._header(max(raw.stamp_ns, 0), raw.frame_id), format="jpeg", data=jpeg.ravel()
        )


def record(
    bag: Bag,
    topics: Topics,
    pipeline: Pipeline,
    out: Path,
    faults: Sequence[Fault] = (),
    progress: Callable[[float], None] = lambda at_s: None,
) -> dict[str, int]:
    """Write ``out``, one MCAP file: every message of the recording unchanged, and the messages that the node would
    have published.

    Faults change what the node receives and what the debug image shows, not the recorded topics.

    Returns:
        How many messages were added, by topic.

    Raises:
        RecordError: ``out`` cannot be written.
    """
    if out.suffix != ".mcap":
        raise RecordError(f"{out}: not an .mcap file; end its name in .mcap")
    if out.exists() and out.resolve() == bag.path.resolve():
        raise RecordError(f"{out}: is the recording itself; write to another file")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.stem}.", dir=out.parent))
    except OSError as error:
        raise RecordError(f"{out}: cannot be written ({error.strerror}); name a folder that can") from None
    try:
        writer = Writer(folder / out.stem, version=8, storage_plugin=StoragePlugin.MCAP)
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer:
            counts = _Recorder(bag, topics, pipeline, writer).run(faults, progress)
        (folder / out.stem / f"{out.stem}.mcap").replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return counts


class _Recorder:
    """The state of one :func:`record`."""

    def __init__(self, bag: Bag, topics: Topics, pipeline: Pipeline, writer: Writer) -> None:
        self._bag, self._topics, self._pipeline, self._writer = bag, topics, pipeline, writer
        self._node = NODE_IF_TAKEN if any(topic.startswith(f"/{NODE}/") for topic in bag.types) else NODE
        self._store = _our_types()
        self._messages = _Messages(self._store, self._node)
        self._connections: dict[tuple[str, str], Connection] = {}
        self._added: Counter[str] = Counter()
        self._states: tuple[StreamState, ...] = ()
        self._last_diagnosed_ns = bag.start_ns - DIAGNOSTICS_PERIOD_NS
        self._frame: RawImage | None = None
        self._lead = pipeline.manifest.lead_camera

    def run(self, faults: Sequence[Fault], progress: Callable[[float], None]) -> dict[str, int]:
        for connection in self._bag.connections:
            self._original(connection.topic, connection.msgtype, connection)
        for topic, msgtype in (
            (f"/{self._node}/prediction", PREDICTION),
            (DIAGNOSTICS, DIAGNOSTIC_ARRAY),
            (f"/{self._node}/debug_image", COMPRESSED),
        ):
            if (topic, msgtype) not in self._connections:
                self._connections[topic, msgtype] = self._writer.add_connection(topic, msgtype, typestore=self._store)
        for answer in drive(self._bag, self._topics, self._pipeline, faults, self._copied(), self._watch):
            now_ns = self._bag.start_ns + round(answer.at_s * NANOSECONDS)
            self._add(
                f"/{self._node}/prediction",
                PREDICTION,
                now_ns,
                self._messages.prediction(
                    answer.prediction, now_ns, self._frame.frame_id if self._frame is not None else ""
                ),
            )
            self._diagnose(now_ns)
            if self._frame is not None and self._lead is not None:
                self._add(
                    f"/{self._node}/debug_image",
                    COMPRESSED,
                    now_ns,
                    self._messages.picture(self._frame, answer.prediction, self._lead),
                )
            progress(answer.at_s)
        return dict(self._added)

    def _original(self, topic: str, msgtype: str, connection: Connection) -> None:
        if (topic, msgtype) in self._connections:
            return
        qos = connection.ext.offered_qos_profiles if isinstance(connection.ext, ConnectionExtRosbag2) else ()
        self._connections[topic, msgtype] = self._writer.add_connection(
            topic, msgtype, typestore=self._bag.typestore, offered_qos_profiles=qos
        )

    def _copied(self) -> Iterator[RecordedMessage]:
        """Every message of the recording, written as it is on its way to the pipeline."""
        for recorded in self._bag.messages():
            self._writer.write(self._connections[recorded.topic, recorded.type], recorded.log_ns, recorded.data)
            yield recorded

    def _watch(self, stream: str, raw: Raw | None, seen: Observation, now_ns: int) -> None:
        if stream == self._lead and isinstance(raw, RawImage) and seen.rejected is None:
            self._frame = raw
        self._diagnose(now_ns)

    def _diagnose(self, now_ns: int) -> None:
        """Once a second and at each change of state, as the node does."""
        statuses = self._pipeline.statuses(now_ns)
        states = tuple(s.state for s in statuses)
        if states == self._states and now_ns - self._last_diagnosed_ns < DIAGNOSTICS_PERIOD_NS:
            return
        self._states, self._last_diagnosed_ns = states, now_ns
        values = {
            "model": self._pipeline.manifest.name,
            "device": self._pipeline.device,
            "predictions (messages)": self._added[f"/{self._node}/prediction"],
        }
        drift = self._pipeline.drift.findings(now_ns)
        diagnostics = [
            *map(diagnose_stream, statuses),
            diagnose_inference(self._pipeline.device, "active", "", drift, values),
        ]
        self._add(DIAGNOSTICS, DIAGNOSTIC_ARRAY, now_ns, self._messages.diagnostics(diagnostics, now_ns))

    def _add(self, topic: str, msgtype: str, log_ns: int, message: Any) -> None:
        self._writer.write(self._connections[topic, msgtype], log_ns, self._store.serialize_cdr(message, msgtype))
        self._added[topic] += 1
