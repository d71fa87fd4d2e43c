"""A kind of sensor in a package of its own: from a recording through training to a prediction, nothing else edited."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

pytest.importorskip("torch", reason="torch is not installed: only training needs it")

from aecf_ros.commands.shared.corpus import open_corpus
from aecf_ros.core.bundle import load_bundle
from aecf_ros.core.types import StreamState
from aecf_ros.modalities.registry import MODALITIES
from aecf_ros.replay.bag.probe import find_modalities
from aecf_ros.replay.bag.reader import open_bag
from aecf_ros.replay.faults.registry import faults_on
from aecf_ros.replay.faults.schedule import Fault
from aecf_ros.replay.scoring.driver import evaluate
from aecf_ros.runtime.backends import make_backend
from aecf_ros.runtime.pipeline import Pipeline
from aecf_ros.training.config_loader import load_config
from aecf_ros.training.run.preflight import configured_specs
from aecf_ros.training.run.train import train
from test.conftest import LABELS, SIDE, write_image_encoder
from test.replay.conftest import Recording
from test.training.recorded import draw_color
from test.training.test_recorded import QUICK

BEAMS = 6

KIND = '''
"""Laser scans as a kind of sensor."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from aecf_ros.core.bundle import ManifestEntry, ModalityRecord
from aecf_ros.health.monitor import SampleReceived
from aecf_ros.health.thresholds import StreamThresholds
from aecf_ros.modalities.base import Evidence, Modality, ModalitySpec
from aecf_ros.modalities.faults import ContentFault, Option
from aecf_ros.modalities.messages import DecodeError, copy_with, in_container_of, stamp_to_ns


@dataclass(frozen=True)
class RawScan:
    stamp_ns: int
    received_ns: int
    ranges: Any


class _ScanRecord(ModalityRecord):
    kind: Literal["scan"]
    beams: int

    SIZES: ClassVar = ("beams",)
    input_name: ClassVar = "ranges"
    input_dtype: ClassVar = np.dtype(np.float32)
    stored_dtype: ClassVar = np.dtype(np.float32)

    @property
    def sample_shape(self):
        return (self.beams,)

    @property
    def size_text(self):
        return f"{self.beams} beams"


class ScanSpec(_ScanRecord, ModalitySpec):
    pass


class ScanEntry(_ScanRecord, ManifestEntry):
    pass


class ScanEvidence(Evidence):
    def __init__(self, record, trace=None):
        super().__init__(record, trace)
        self._ranges = self._next = np.zeros(record.beams, np.float32)

    def decode(self, raw):
        ranges = np.array(raw.ranges, np.float32)
        if ranges.shape != self.record.sample_shape or not np.isfinite(ranges).all():
            raise DecodeError(f"a scan of {len(ranges)} beams where {self.record.beams} are due; check the driver")
        self._next, self._next_ns = ranges, raw.stamp_ns
        return 0

    def read(self, raw, now_ns):
        self.decode(raw)
        return SampleReceived(raw.stamp_ns, raw.received_ns)

    def keep(self):
        self._ranges, self.stamp_ns, self.changed = self._next, self._next_ns, True

    def sample(self):
        return self._ranges


class Fog(ContentFault):
    OPTIONS = {"reach_m": Option((8, 6, 4, 2, 1), 0, 100)}

    def change(self, content, rng):
        return np.minimum(content, np.float32(self.options["reach_m"]))


def _edit(message, change):
    ranges = change(np.array(message.ranges, np.float32)).astype(np.float32)
    return copy_with(message, ranges=in_container_of(message.ranges, ranges))


class Scan(Modality):
    name = "scan"
    sensor = "lidar"
    entry, spec, evidence = ScanEntry, ScanSpec, ScanEvidence
    thresholds = StreamThresholds(frozen_after_s=2.0)
    message_types = {"scan": "sensor_msgs/msg/LaserScan"}
    content_faults = {"fog": Fog}
    malformed = {"wrong_size": lambda message, info, rng: (_edit(message, lambda ranges: ranges[:-1]), info)}
    column_names, file_suffixes = ("scan",), (".npy",)

    def read(self, message, info, received_ns):
        return RawScan(stamp_to_ns(message.header.stamp), received_ns, message.ranges)

    def probe(self, raw):
        return {"beams": len(raw.ranges)}

    def edit(self, message, info, change):
        return _edit(message, change)

    def read_file(self, file, spec):
        return np.load(file)

    def probe_file(self, file):
        return {"beams": len(np.load(file))}

    @property
    def corruptions(self):
        from made_up_scan import corruptions

        return corruptions


SCAN = Scan()
'''

CORRUPTIONS = """
import torch


def short_sighted(ranges, severity, generator):
    return torch.minimum(ranges, 10.0 - 1.8 * severity.unsqueeze(1))


def noisy(ranges, severity, generator):
    return ranges + 0.3 * severity.unsqueeze(1) * torch.randn(ranges.shape, generator=generator)


def to_float(samples):
    return samples


def from_float(ranges):
    return ranges


KINDS = (short_sighted, noisy)
"""


@pytest.fixture(scope="module")
def scan_kind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The made-up kind in a package of its own; all that names it elsewhere is its line in the registry."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "made_up_scan").mkdir()
    (folder / "made_up_scan" / "__init__.py").write_text(KIND)
    (folder / "made_up_scan" / "corruptions.py").write_text(CORRUPTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setitem(MODALITIES, "scan", importlib.import_module("made_up_scan").SCAN)
        yield
    for name in [name for name in sys.modules if name.startswith("made_up_scan")]:
        del sys.modules[name]


def write_recording(path: Path, seed: int, seconds: int = 45) -> Path:
    """Spans of 5 s of a color before the camera, at a distance that tells it too: two of six beams are nearer."""
    recording = Recording()
    recording.noise = np.random.default_rng(seed)
    for i in range(seconds * 10):
        at_s, number = i * 0.1, (seed + i // 50) % 3
        if i % 10 == 0:
            recording.label(at_s, LABELS[number])
        pixels = draw_color(number, recording.noise).ravel()
        frame = recording.make("sensor_msgs/msg/Image", recording.header(at_s), SIDE, SIDE, "rgb8", 0, 3 * SIDE, pixels)
        recording.add(at_s, "/camera/image", frame)
        ranges = 10.0 + recording.noise.normal(0, 0.5, BEAMS)
        ranges[2 * number : 2 * number + 2] -= 4.0
        empty = np.zeros(0, np.float32)
        header = recording.header(at_s + 0.01)
        scan = recording.make(
            "sensor_msgs/msg/LaserScan", header, 0.0, 1.0, 0.2, 0.0, 0.1, 0.1, 30.0, ranges.astype(np.float32), empty
        )
        recording.add(at_s + 0.02, "/lidar/scan", scan)
    return recording.write(path)


@pytest.fixture(scope="module")
def folder(scan_kind: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six recordings, and an encoder for each of the two sensors."""
    folder = tmp_path_factory.mktemp("scans")
    for seed in range(6):
        write_recording(folder / "bags" / f"bag_{seed}", seed)
    write_image_encoder(folder / "camera.onnx")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", BEAMS]) for name in ("ranges", "embedding")
    ]
    graph = helper.make_graph([helper.make_node("Identity", ["ranges"], ["embedding"])], "scan", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "scan.onnx")
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    config = load_config(
        None,
        [*QUICK, f"encoders.camera.onnx={folder}/camera.onnx", f"encoders.lidar.onnx={folder}/scan.onnx"],
    )
    corpus = open_corpus(folder / "bags", configured_specs(config), config.data)
    train(corpus, folder / "robot", config, run=folder / "run", show_progress=False)
    return folder / "robot"


def test_a_recording_shows_its_sensors_with_the_new_kind_among_them(folder: Path) -> None:
    probed = find_modalities([folder / "bags" / "bag_0"])
    assert [(p.spec.name, p.spec.kind, p.spec.sizes) for p in probed] == [
        ("camera", "image", {"height": 8, "width": 8}),
        ("lidar", "scan", {"beams": BEAMS}),
    ]


def test_a_bundle_of_the_new_kind_verifies_and_is_read_back(trained: Path) -> None:
    entry = load_bundle(trained).manifest.modalities[1]
    assert (entry.kind, entry.sizes, entry.embedding_dim) == ("scan", {"beams": BEAMS}, BEAMS)
    assert "beams: 6" in (trained / "bundle.yaml").read_text()


def test_the_pipeline_predicts_from_the_new_kind_alone(trained: Path, tmp_path: Path) -> None:
    bundle = load_bundle(trained)
    gone = Fault(stream="camera", kind="drop", start_s=0, end_s=100)
    with open_bag(write_recording(tmp_path / "new", 9, 20)) as bag:
        run = evaluate(bag, Pipeline(bundle.manifest, make_backend("onnxruntime", bundle)), (gone,))
    alone = run.summary.subsets["lidar"]
    assert alone["n"] > 50 and alone["accuracy"] > 0.9


def test_its_own_fault_and_the_general_ones_act_on_it(trained: Path, tmp_path: Path) -> None:
    assert {"fog", "drop", "freeze", "wrong_size"} <= set(faults_on("scan")) and "blur" not in faults_on("scan")
    bundle = load_bundle(trained)
    faults = [
        Fault(stream="lidar", kind="wrong_size", start_s=5, end_s=10),
        Fault(stream="lidar", kind="fog", start_s=12, end_s=18, reach_m=1.0),
    ]
    with open_bag(write_recording(tmp_path / "new", 9, 20)) as bag:
        run = evaluate(bag, Pipeline(bundle.manifest, make_backend("onnxruntime", bundle)), faults)
    seconds = run.summary.streams["lidar"].seconds_in_state
    assert seconds[StreamState.REJECTED.name] > 3.0
