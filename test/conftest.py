"""A bundle made by hand, small enough to know by heart what it answers.

Three labels. A camera's embedding is the mean red, green and blue of its image; a microphone's is the power of its
tones at 50, 100 and
200 Hz; a vector's is itself. The head adds ten times the embeddings of what is present and takes the softmax, so
that red and 50 Hz both say ``red``.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import settings
from onnx import TensorProto, helper, numpy_helper

from aecf_ros.core.bundle import Manifest, sha256, write_manifest

# The same examples on every run. To search further: pytest --hypothesis-profile=default --hypothesis-seed=N
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

LABELS = ["red", "green", "blue"]
TONES_HZ = (50.0, 100.0, 200.0)
SIDE, RATE_HZ, WINDOW_S = 8, 800, 0.5
CAMERA_AND_AUDIO = {"camera": "image", "audio": "audio"}

MakeBundle = Callable[..., Path]


def _constant(name: str, value: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def _save(path: Path, nodes: list, inputs: list, outputs: list, constants: list) -> None:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _value(name: str, dtype: int, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, ["batch", *shape])


def write_image_encoder(path: Path, height: int = SIDE, width: int = SIDE, output: str = "embedding") -> None:
    """Mean color in [0, 1]: uint8 [batch, height, width, 3] -> float32 [batch, 3]."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Div", ["mean", "full"], [output]),
    ]
    _save(
        path,
        nodes,
        [_value("image", TensorProto.UINT8, height, width, 3)],
        [_value(output, TensorProto.FLOAT, 3)],
        [_constant("full", np.float32(255))],
    )


def write_audio_encoder(path: Path) -> None:
    """Power of each tone, 1 at full amplitude: float32 [batch, 400] -> float32 [batch, 3]."""
    n = round(RATE_HZ * WINDOW_S)
    phase = 2 * np.pi * np.outer(np.arange(n) / RATE_HZ, TONES_HZ)
    waves = np.stack([np.cos(phase), np.sin(phase)], axis=2).reshape(n, 6) * 2 / n
    pairs = np.repeat(np.eye(3), 2, axis=0)
    nodes = [
        helper.make_node("MatMul", ["samples", "waves"], ["parts"]),
        helper.make_node("Mul", ["parts", "parts"], ["powers"]),
        helper.make_node("MatMul", ["powers", "pairs"], ["embedding"]),
    ]
    _save(
        path,
        nodes,
        [_value("samples", TensorProto.FLOAT, n)],
        [_value("embedding", TensorProto.FLOAT, 3)],
        [_constant("waves", waves.astype(np.float32)), _constant("pairs", pairs.astype(np.float32))],
    )


def write_vector_encoder(path: Path) -> None:
    """The vector itself: float32 [batch, 3] -> float32 [batch, 3]."""
    _save(
        path,
        [helper.make_node("Identity", ["vector"], ["embedding"])],
        [_value("vector", TensorProto.FLOAT, 3)],
        [_value("embedding", TensorProto.FLOAT, 3)],
        [],
    )


def write_head(path: Path, names: list[str]) -> None:
    """The sum of the present embeddings, through a softmax; see the module's docstring."""
    nodes, stacked = [], []
    for m, name in enumerate(names):
        nodes += [
            helper.make_node("Gather", ["present", f"column_{m}"], [f"present_{m}"], axis=1),
            helper.make_node("Where", [f"present_{m}", f"embedding_{name}", "zero"], [f"kept_{m}"]),
            helper.make_node("Unsqueeze", [f"kept_{m}", "one_axis"], [f"row_{m}"]),
        ]
        stacked.append(f"row_{m}")

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> None:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))

    node("Concat", stacked, "rows", axis=1)
    node("Mul", ["rows", "ten"], "alone_logits")
    node("Softmax", ["alone_logits"], "modality_probabilities", axis=2)
    node("ReduceSum", ["alone_logits", "one_axis"], "logits", keepdims=0)
    node("Softmax", ["logits"], "probabilities", axis=1)
    node("ReduceMax", ["probabilities"], "confidence", axes=[1], keepdims=0)
    node("Cast", ["present"], "presence", to=TensorProto.FLOAT)
    node("ReduceSum", ["presence", "one_axis"], "count", keepdims=1)
    node("Max", ["count", "one"], "divisor")
    node("Div", ["presence", "divisor"], "gate_weights")
    node("Squeeze", ["divisor", "one_axis"], "shares")
    node("Log", ["shares"], "gate_entropy")
    node("ReduceMin", ["modality_probabilities"], "common", axes=[1], keepdims=0)
    node("ReduceSum", ["common", "one_axis"], "overlap", keepdims=0)
    node("Greater", ["shares", "one_scalar"], "several")
    node("Where", ["several", "overlap", "zero_scalar"], "agreement")
    node("GreaterOrEqual", ["probabilities", "tenth"], "prediction_set")
    node("Less", ["confidence", "half"], "unsure")
    node("Where", ["unsure", "low_confidence", "no_code"], "code")
    node("Squeeze", ["count", "one_axis"], "how_many")
    node("Less", ["how_many", "half"], "nobody")
    node("Where", ["nobody", "no_stream", "code"], "abstain_code")
    m = len(names)
    outputs = [
        _value("probabilities", TensorProto.FLOAT, 3),
        _value("confidence", TensorProto.FLOAT),
        _value("gate_weights", TensorProto.FLOAT, m),
        _value("gate_entropy", TensorProto.FLOAT),
        _value("agreement", TensorProto.FLOAT),
        _value("modality_probabilities", TensorProto.FLOAT, m, 3),
        _value("prediction_set", TensorProto.BOOL, 3),
        _value("abstain_code", TensorProto.INT64),
    ]
    constants = [_constant(f"column_{i}", np.array([i])) for i in range(m)] + [
        _constant("zero", np.zeros((1, 1), np.float32)),
        _constant("one_axis", np.array([1])),
        _constant("ten", np.float32(10)),
        _constant("one", np.ones((1, 1), np.float32)),
        _constant("one_scalar", np.float32(1)),
        _constant("zero_scalar", np.float32(0)),
        _constant("tenth", np.float32(0.1)),
        _constant("half", np.float32(0.5)),
        _constant("low_confidence", np.int64(3)),
        _constant("no_code", np.int64(0)),
        _constant("no_stream", np.int64(1)),
    ]
    _save(
        path,
        nodes,
        [_value(f"embedding_{n}", TensorProto.FLOAT, 3) for n in names] + [_value("present", TensorProto.BOOL, m)],
        outputs,
        constants,
    )


def write_bundle(directory: Path, modalities: dict[str, str] = CAMERA_AND_AUDIO) -> Path:
    """Write the bundle of the module's docstring for ``modalities`` name -> kind; gives ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    specs = []
    for name, kind in modalities.items():
        encoder = f"{name}_encoder.onnx"
        if kind == "image":
            write_image_encoder(directory / encoder)
            specs.append(
                {"name": name, "kind": kind, "encoder": encoder, "embedding_dim": 3, "height": SIDE, "width": SIDE}
            )
        elif kind == "vector":
            write_vector_encoder(directory / encoder)
            specs.append({"name": name, "kind": kind, "encoder": encoder, "embedding_dim": 3, "dim": 3})
        else:
            write_audio_encoder(directory / encoder)
            specs.append(
                {
                    "name": name,
                    "kind": kind,
                    "encoder": encoder,
                    "embedding_dim": 3,
                    "rate_hz": RATE_HZ,
                    "window_s": WINDOW_S,
                }
            )
    write_head(directory / "head.onnx", list(modalities))
    write_tiny_manifest(directory, specs)
    return directory


def write_tiny_manifest(directory: Path, specs: list[dict]) -> None:
    """Write ``bundle.yaml`` for the graphs that lie in ``directory``, with their hashes as they are now."""
    names = [spec["name"] for spec in specs]
    subsets = ["+".join(n for i, n in enumerate(names) if pattern >> i & 1) for pattern in range(1, 2 ** len(names))]
    write_manifest(
        Manifest.model_validate(
            {
                "format_version": 1,
                "name": "tiny",
                "labels": LABELS,
                "modalities": specs,
                "head": "head.onnx",
                "calibration": {
                    "method": "by hand",
                    "coverage": 0.9,
                    "subsets": dict.fromkeys(subsets, {"samples": 1, "temperature": 1, "set_threshold": 0.1}),
                },
                "training": {
                    "data": [],
                    "samples": {},
                    "seed": 0,
                    "created": "2026-11-21",
                    "aecf_ros_version": "0.1.0",
                },
                "metrics": {},
                "files": {path.name: sha256(path) for path in sorted(directory.glob("*.onnx"))},
            }
        ),
        directory,
    )


@pytest.fixture
def ray_on_two_cpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray on this machine, patient with a busy one; whoever connects uses it."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install aecf_ros[fleet]")
    for name, value in (
        ("USAGE_STATS_ENABLED", "0"),
        ("raylet_start_wait_time_s", "300"),
        ("worker_register_timeout_seconds", "300"),
    ):
        monkeypatch.setenv(f"RAY_{name}", value)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle directory with a camera (8x8) and a microphone (800 Hz, 0.5 s). Do not write into it."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """A function modalities -> a bundle directory of one's own, to spoil or to enlarge."""
    return lambda modalities=CAMERA_AND_AUDIO: write_bundle(tmp_path / "tiny", modalities)


@pytest.fixture(scope="session")
def shipped_bundle() -> Path:
    """The directory of the bundle that the repository ships."""
    return Path(__file__).resolve().parents[1] / "models" / "av_digits"


@pytest.fixture(scope="session")
def drawn_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a trained evidence gate behind the encoders of this module (test/drawn_model.py). Do not write
    into it.
    """
    pytest.importorskip("torch", reason="torch is not installed: only training needs it")
    from test.drawn_model import write_model

    return write_model(tmp_path_factory.mktemp("drawn") / "drawn", {"gate": "evidence", "monotone": "soft"}).directory
