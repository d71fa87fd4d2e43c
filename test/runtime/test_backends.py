"""Backends run what a bundle promises, and refuse in one line what they cannot."""

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import yaml

from aecf_ros.core.bundle import BundleError, load_bundle, sha256
from aecf_ros.runtime import onnx_backend
from aecf_ros.runtime.backends import make_backend
from aecf_ros.runtime.base import BackendError, BackendOptions
from aecf_ros.runtime.onnx_backend import BoundEncoder, OnnxBackend

RED = np.full((8, 8, 3), (255, 0, 0), np.uint8)


def rewrite(bundle: Path, file: str, change: object) -> None:
    """Change a graph and hash it again: the manifest's hashes hold, its promises need not."""
    model = onnx.load(bundle / file)
    change(model.graph)
    onnx.save(model, bundle / file)
    fields = yaml.safe_load((bundle / "bundle.yaml").read_text())
    fields["files"][file] = sha256(bundle / file)
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(fields))


def refusal(bundle: Path, kind: type[Exception] = BundleError, **options: object) -> str:
    with pytest.raises(kind) as caught:
        make_backend(**({"name": "onnxruntime", "device": "cpu"} | options), bundle=load_bundle(bundle))
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_an_encoder_takes_one_sample_and_gives_one_embedding(tiny_bundle: Path) -> None:
    backend = make_backend("onnxruntime", load_bundle(tiny_bundle), "cpu")
    assert backend.device == "cpu"
    np.testing.assert_allclose(backend.encode("camera", RED), [1, 0, 0])
    tone = 0.5 * np.sin(2 * np.pi * 100 * np.arange(400) / 800 + 1).astype(np.float32)
    np.testing.assert_allclose(backend.encode("audio", tone), [0, 0.25, 0], atol=1e-5)


def test_the_head_fuses_what_is_present(tiny_bundle: Path) -> None:
    backend = make_backend("onnxruntime", load_bundle(tiny_bundle), "cpu")
    red, blue = np.array([1, 0, 0], np.float32), np.array([0, 0, 1], np.float32)
    both = backend.fuse({"camera": red, "audio": blue}, [True, True])
    e = np.exp(10)
    np.testing.assert_allclose(both.probabilities, np.array([e, 1, e]) / (2 * e + 1), rtol=1e-5)
    assert both.confidence == pytest.approx(e / (2 * e + 1), rel=1e-5)
    np.testing.assert_allclose(both.gate_weights, [0.5, 0.5])
    assert both.gate_entropy == pytest.approx(np.log(2))
    assert both.agreement < 0.01 and both.modality_probabilities.shape == (2, 3)
    np.testing.assert_array_equal(both.prediction_set, [True, False, True])
    camera = backend.fuse({"camera": red}, [True, False])
    assert camera.probabilities[0] > 0.99 and camera.abstain_code == 0
    np.testing.assert_array_equal(camera.gate_weights, [1, 0])
    np.testing.assert_allclose(camera.modality_probabilities[1], 1 / 3)
    nothing = backend.fuse({}, [False, False])
    np.testing.assert_allclose(nothing.probabilities, 1 / 3)
    assert nothing.abstain_code == 1


def test_what_is_absent_is_not_even_fed(tiny_bundle: Path) -> None:
    backend = make_backend("onnxruntime", load_bundle(tiny_bundle), "cpu")
    nan = np.full(3, np.nan, np.float32)
    red = np.array([1, 0, 0], np.float32)
    with_nan, without = (
        backend.fuse({"camera": red, "audio": nan}, [True, False]),
        backend.fuse({"camera": red}, [True, False]),
    )
    np.testing.assert_array_equal(with_nan.probabilities, without.probabilities)


def test_an_unknown_backend(tiny_bundle: Path) -> None:
    assert "'tflite'" in (line := refusal(tiny_bundle, BackendError, name="tflite")) and "onnxruntime" in line


def test_an_unknown_device(tiny_bundle: Path) -> None:
    assert "'gpu'" in (line := refusal(tiny_bundle, BackendError, device="gpu")) and "cuda" in line


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this onnxruntime has CUDA")
def test_a_device_that_this_machine_lacks_is_named_beside_what_there_is(tiny_bundle: Path) -> None:
    line = refusal(tiny_bundle, BackendError, device="cuda")
    assert "'cuda'" in line and "CPUExecutionProvider" in line and "device: cpu" in line


def test_a_provider_that_is_listed_but_falls_back_is_an_error(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A GPU build of onnxruntime lists CUDA and TensorRT also where their libraries are missing.
    monkeypatch.setattr(
        ort,
        "get_available_providers",
        lambda: ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    monkeypatch.setattr(ort, "InferenceSession", _only_on_cpu(ort.InferenceSession))
    assert "fell back to CPUExecutionProvider" in refusal(tiny_bundle, BackendError, device="cuda")


def test_auto_goes_on_to_what_works_and_names_it(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ort,
        "get_available_providers",
        lambda: ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    monkeypatch.setattr(ort, "InferenceSession", _only_on_cpu(ort.InferenceSession))
    backend = make_backend("onnxruntime", load_bundle(tiny_bundle), "auto")
    assert backend.device == "cpu"
    np.testing.assert_allclose(backend.encode("camera", RED), [1, 0, 0])


def _only_on_cpu(session: type) -> object:
    return lambda path, options, providers: session(path, options, providers=["CPUExecutionProvider"])


def test_an_image_encoder_of_another_size(make_bundle: object) -> None:
    bundle = make_bundle()

    def grow(graph: onnx.GraphProto) -> None:
        graph.input[0].type.tensor_type.shape.dim[1].dim_value = 16

    rewrite(bundle, "camera_encoder.onnx", grow)
    line = refusal(bundle)
    assert "camera_encoder.onnx" in line and "16" in line and "[batch" in line.replace("'", "")


def test_an_encoder_with_another_embedding_dimension(make_bundle: object) -> None:
    bundle = make_bundle()
    fields = yaml.safe_load((bundle / "bundle.yaml").read_text())
    fields["modalities"][0]["embedding_dim"] = 64
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(fields))
    assert "embedding" in (line := refusal(bundle)) and "64" in line


def test_an_encoder_of_another_type(make_bundle: object) -> None:
    bundle = make_bundle()

    def as_float(graph: onnx.GraphProto) -> None:
        graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT

    rewrite(bundle, "camera_encoder.onnx", as_float)
    assert "tensor(float)" in (line := refusal(bundle)) and "tensor(uint8)" in line


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if n == old else n for n in node.input]
        node.output[:] = [new if n == old else n for n in node.output]
    for value in (*graph.input, *graph.output):
        if value.name == old:
            value.name = new


@pytest.mark.parametrize(
    ("file", "old"),
    [
        ("camera_encoder.onnx", "image"),
        ("camera_encoder.onnx", "embedding"),
        ("audio_encoder.onnx", "samples"),
        ("head.onnx", "present"),
        ("head.onnx", "embedding_audio"),
        ("head.onnx", "gate_weights"),
        ("head.onnx", "abstain_code"),
    ],
)
def test_a_graph_without_a_promised_name(make_bundle: object, file: str, old: str) -> None:
    bundle = make_bundle()
    rewrite(bundle, file, lambda graph: _rename(graph, old, "renamed"))
    line = refusal(bundle)
    assert file in line and f"'{old}'" in line and "renamed" in line


def test_a_head_that_wants_more_than_anybody_feeds(make_bundle: object) -> None:
    bundle = make_bundle()
    rewrite(
        bundle,
        "head.onnx",
        lambda graph: graph.input.append(onnx.helper.make_tensor_value_info("mood", onnx.TensorProto.FLOAT, ["batch"])),
    )
    assert "mood" in refusal(bundle)


def test_a_graph_for_batches_of_four_only(make_bundle: object) -> None:
    bundle = make_bundle()

    def fix(graph: onnx.GraphProto) -> None:
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4

    rewrite(bundle, "camera_encoder.onnx", fix)
    assert "[4, 8, 8, 3]" in refusal(bundle)


def test_a_file_that_is_no_graph(make_bundle: object) -> None:
    bundle = make_bundle()
    (bundle / "head.onnx").write_bytes(b"not a graph\n" * 30)
    fields = yaml.safe_load((bundle / "bundle.yaml").read_text())
    fields["files"]["head.onnx"] = sha256(bundle / "head.onnx")
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(fields))
    assert "head.onnx" in (line := refusal(bundle)) and "cannot load" in line


def test_the_shipped_bundle_answers_for_every_subset(shipped_bundle: Path) -> None:
    bundle = load_bundle(shipped_bundle)
    backend = OnnxBackend(bundle, BackendOptions("cpu"))
    rng = np.random.default_rng(0)
    embeddings = {}
    for m in bundle.manifest.modalities:
        sample = (
            rng.integers(0, 255, m.sample_shape, dtype=np.uint8)
            if m.kind == "image"
            else rng.normal(0, 0.1, m.sample_shape).astype(np.float32)
        )
        embeddings[m.name] = backend.encode(m.name, sample)
        assert embeddings[m.name].shape == (m.embedding_dim,) and np.isfinite(embeddings[m.name]).all()
    for present in product([True, False], repeat=len(embeddings)):
        out = backend.fuse(embeddings, present)
        assert out.probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert out.confidence == pytest.approx(out.probabilities.max())
        assert out.gate_weights.sum() == pytest.approx(float(any(present)), abs=1e-5)
        assert not out.gate_weights[~np.array(present)].any()
        assert 0 <= out.agreement <= 1 and out.prediction_set[out.probabilities.argmax()]
        assert (out.abstain_code == 1) is (not any(present))
        if sum(present) < 2:
            assert out.agreement == 0


def test_the_shipped_head_ignores_garbage_where_nothing_is_present(shipped_bundle: Path) -> None:
    # Past the backend, which does not feed what is absent: the graph itself must hold for other callers.
    bundle = load_bundle(shipped_bundle)
    session = ort.InferenceSession(str(bundle.path(bundle.manifest.head)), providers=["CPUExecutionProvider"])
    for present in product([True, False], repeat=2):
        outputs = []
        for garbage in (0.0, 1e6, np.nan):
            feeds = {
                f"embedding_{m.name}": np.full((1, m.embedding_dim), 0.1 if used else garbage, np.float32)
                for m, used in zip(bundle.manifest.modalities, present, strict=True)
            }
            outputs.append(session.run(None, feeds | {"present": np.array([present])}))
        for other in outputs[1:]:
            for ours, theirs in zip(outputs[0], other, strict=True):
                np.testing.assert_array_equal(ours, theirs)


class FailingGpuSession:
    """A session that says it runs on CUDA, and whose GPU falls off the bus after ``runs`` runs."""

    def __init__(self, path: str, options: ort.SessionOptions, runs: int) -> None:
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._left = runs
        self.fell_back_by_itself = True

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def disable_fallback(self) -> None:
        self.fell_back_by_itself = False

    def run_with_iobinding(self, binding: ort.IOBinding) -> None:
        assert not self.fell_back_by_itself
        if self._left == 0:
            raise RuntimeError("CUDA failure 719: unspecified launch failure\nat line 42")
        self._left -= 1
        self._session.run_with_iobinding(binding)

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)


@pytest.fixture
def failing_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes this onnxruntime one with a GPU, each of whose sessions fails after some runs."""

    def install(runs: int) -> None:
        real = ort.InferenceSession

        def make(path: str, options: ort.SessionOptions, providers: list[str]) -> object:
            with monkeypatch.context() as inner:
                inner.setattr(ort, "InferenceSession", real)
                return (
                    real(path, options, providers=providers)
                    if providers == ["CPUExecutionProvider"]
                    else FailingGpuSession(path, options, runs)
                )

        monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
        monkeypatch.setattr(ort, "InferenceSession", make)
        monkeypatch.setattr(onnx_backend, "BoundEncoder", partial(BoundEncoder, device="cpu"))

    return install


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_that_fails_at_run_time_is_given_up_for_the_cpu_and_no_sample_is_lost(
    tiny_bundle: Path, failing_gpu: object, device: str
) -> None:
    failing_gpu(runs=2)
    backend = make_backend("onnxruntime", load_bundle(tiny_bundle), device)
    assert (backend.device, backend.fault) == ("cuda", "")
    for i in range(6):
        np.testing.assert_allclose(
            backend.encode("camera", np.full((8, 8, 3), 51 * i, np.uint8)), np.full(3, i / 5), rtol=1e-5
        )
        assert backend.device == ("cuda" if i < 2 else "cpu")
    assert backend.fault == (
        "cuda failed and was given up for the CPU (CUDA failure 719: unspecified launch failure); "
        "check the GPU, then call ~/reload_model"
    )


def test_what_the_cpu_refuses_is_not_hidden(tiny_bundle: Path) -> None:
    backend = make_backend("onnxruntime", load_bundle(tiny_bundle), "cpu")
    with pytest.raises(Exception, match="[Ii]nvalid"):
        backend.encode("camera", np.zeros((3, 3, 3), np.uint8))
    assert (backend.device, backend.fault) == ("cpu", "")


def test_an_encoder_bound_to_a_device_gives_what_the_session_gives(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    session = ort.InferenceSession(str(bundle.path("camera_encoder.onnx")), providers=["CPUExecutionProvider"])
    bound = BoundEncoder(session, bundle.manifest.modalities[0], device="cpu")
    for value in (0, 100, 255):  # the memory is the same each time, the answer must not be
        np.testing.assert_allclose(bound(np.full((8, 8, 3), value, np.uint8)), np.full(3, value / 255), rtol=1e-6)


@pytest.mark.parametrize("option", ["half", "cuda_graphs"])
def test_an_option_of_the_other_backend_is_refused(tiny_bundle: Path, option: str) -> None:
    assert "backend: torch" in refusal(tiny_bundle, BackendError, **{option: True})
