"""The log-mel spectrograms of `aecf wrap-encoder`, against NumPy and numbers of librosa and torchaudio."""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import helper
from scipy.signal import get_window

from aecf_ros.training.features.encoders import mel_filters
from aecf_ros.training.wrap import sessions as wrap_parts
from aecf_ros.training.wrap.spec import WrapError
from aecf_ros.training.wrap.wrap import wrap
from test.training.wrap_graphs import FLOAT, averaging_encoder, describe, passing_encoder, save

RATE_HZ = 16_000
PLAIN = {
    "n_fft": 512,
    "hop": 200,
    "mels": 32,
    "mel_scale": "slaney",
    "mel_norm": "slaney",
    "log": "db",
    "floor": 1e-10,
    "floor_by": "clamp",
}


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrap_parts, "RATE_SECONDS", 0.0)


def chirp(samples: int = 8000, rate_hz: int = RATE_HZ) -> np.ndarray:
    """A rising tone beside a beating one, float32 in [-1, 1]."""
    t = np.arange(samples) / rate_hz
    return (
        0.4 * np.sin(2 * np.pi * (200 * t + 3000 * t**2))
        + 0.05 * np.sin(2 * np.pi * 5100 * t) * np.cos(2 * np.pi * 7 * t)
    ).astype(np.float32)


def run(path: Path, x: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
        ["embedding"], {"samples": x}
    )[0]


def through_the_graph(
    folder: Path, x: np.ndarray, mel: dict, dims: tuple = ("n", None, None), rate_hz: int = RATE_HZ, **fields: object
) -> np.ndarray:
    """(K, numbers of a spectrogram) that an encoder would have been given for (K, N)."""
    passing_encoder(folder / "encoder.onnx", dims, opset=11)
    spec = describe(
        folder, kind="audio", rate_hz=rate_hz, window_s=x.shape[1] / rate_hz, log_mel={"layout": "bmf"} | mel, **fields
    )
    wrap(spec, folder / "wrapped.onnx")
    return run(folder / "wrapped.onnx", x)


def mel_of(hertz: np.ndarray, scale: str) -> np.ndarray:
    """Frequencies on the HTK scale, by its natural logarithm, or on Slaney's."""
    if scale == "htk":
        return 1127.0 * np.log1p(hertz / 700.0)
    return np.where(hertz < 1000, 3 * hertz / 200, 15 + 27 * np.log(np.maximum(hertz, 1) / 1000) / np.log(6.4))


def filters_by_hand(mel: dict, rate_hz: int) -> np.ndarray:
    """(mels, bins); the scale is inverted by interpolation on a fine grid."""
    hertz = np.linspace(0, rate_hz / 2, 200_001)
    low, high = mel_of(np.array([mel.get("fmin", 0), mel.get("fmax") or rate_hz / 2]), mel["mel_scale"])
    points = np.linspace(low, high, mel["mels"] + 2)
    corners = np.interp(points, mel_of(hertz, mel["mel_scale"]), hertz)
    bins = np.arange(mel["n_fft"] // 2 + 1) * rate_hz / mel["n_fft"]
    at, of = (mel_of(bins, mel["mel_scale"]), points) if mel.get("triangles") == "mel" else (bins, corners)
    filters = np.array([np.interp(at, of[m : m + 3], [0, 1, 0], left=0, right=0) for m in range(mel["mels"])])
    return filters * (2 / (corners[2:] - corners[:-2]))[:, None] if mel["mel_norm"] == "slaney" else filters


def by_hand(x: np.ndarray, mel: dict, rate_hz: int = RATE_HZ, full_scale: float = 1.0) -> np.ndarray:
    """(mels, frames) of (N,), frame by frame with NumPy's FFT in double precision."""
    x = x.astype(np.float64) * full_scale
    if mel.get("preemphasis"):
        x = x[1:] - mel["preemphasis"] * x[:-1]
    size, window = mel["n_fft"], mel.get("window") or mel["n_fft"]
    name = {"rectangular": "boxcar"}.get(mel.get("window_function", "hann"), mel.get("window_function", "hann"))
    taper = get_window(name, window, fftbins=mel.get("periodic", True))
    if mel.get("frame", "n_fft") == "n_fft":
        taper = np.pad(taper, ((size - window) // 2, size - window - (size - window) // 2))
    if mel.get("center", True):
        x = np.pad(x, size // 2, mode=mel.get("padding", "reflect"))
    starts = range(0, len(x) - len(taper) + 1, mel["hop"])
    spectrum = np.abs([np.fft.rfft(x[at : at + len(taper)] * taper, size) for at in starts]).T ** mel.get("power", 2)
    y = filters_by_hand(mel, rate_hz) @ spectrum
    y = np.maximum(y, mel["floor"]) if mel["floor_by"] == "clamp" else y + mel["floor"]
    y = {"ln": np.log(y), "log10": np.log10(y), "db": 20 / mel.get("power", 2) * np.log10(y)}[mel["log"]]
    if mel.get("top_db"):
        per_db = {"ln": np.log(10) / 20, "log10": 1 / 20, "db": 1 / mel.get("power", 2)}[mel["log"]] * mel.get(
            "power", 2
        )
        y = np.maximum(y, y.max() - mel["top_db"] * per_db)
    return (y - np.array(mel.get("mean", 0)).reshape(-1, 1)) / np.array(mel.get("std", 1)).reshape(-1, 1)


@st.composite
def spectrograms(draw: st.DrawFn) -> tuple[dict, int]:
    """Settings of a spectrogram, and a number of samples that it can be taken of."""
    size = draw(st.sampled_from([64, 100, 127, 256, 512]))
    frame = draw(st.sampled_from(["n_fft", "window"]))
    mel = {
        "n_fft": size,
        "window": draw(st.one_of(st.none(), st.integers(20, size))),
        "hop": draw(st.integers(8, 300)),
        "window_function": draw(st.sampled_from(["hann", "hamming", "blackman", "rectangular"])),
        "periodic": draw(st.booleans()),
        "frame": frame,
        "center": draw(st.booleans()) if frame == "n_fft" else False,
        "padding": draw(st.sampled_from(["reflect", "constant"])),
        "preemphasis": draw(st.sampled_from([0.0, 0.97])),
        "power": draw(st.sampled_from([1, 2])),
        "mels": draw(st.integers(1, 24)),
        "fmin": draw(st.sampled_from([0.0, 50.0, 125.0])),
        "fmax": draw(st.sampled_from([None, 6800.0])),
        "mel_scale": draw(st.sampled_from(["htk", "slaney"])),
        "mel_norm": draw(st.sampled_from(["none", "slaney"])),
        "triangles": draw(st.sampled_from(["hz", "mel"])),
        "log": draw(st.sampled_from(["ln", "log10", "db"])),
        "floor": draw(st.sampled_from([1e-3, 1e-5])),
        "floor_by": draw(st.sampled_from(["clamp", "add"])),
        "top_db": draw(st.sampled_from([None, 30.0])),
        "mean": draw(st.sampled_from([0.0, -4.5])),
        "std": draw(st.sampled_from([1.0, 5.0])),
    }
    return mel, draw(st.integers(600, 1500))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spectrograms(), st.sampled_from([1.0, 32768.0]))
def test_the_spectrogram_in_the_graph_is_the_one_that_was_described(drawn: tuple[dict, int], full_scale: float) -> None:
    mel, samples = drawn
    x = np.stack([chirp(samples), 0.3 * chirp(samples)[::-1]])
    with tempfile.TemporaryDirectory() as folder:
        found = through_the_graph(Path(folder), x, mel, full_scale=full_scale)
    due = np.stack([by_hand(row, mel, full_scale=full_scale).ravel() for row in x])
    assert found.shape == due.shape
    assume(np.ptp(due) > 0)
    np.testing.assert_allclose(found, due, rtol=0, atol=1e-3 * max(1.0, np.abs(due).max()))


LIBROSA = {
    "power_to_db of htk=False, norm='slaney'": (
        PLAIN | {"fmin": 50, "fmax": 7500, "top_db": 80},
        [
            (0, 0, 10.7625),
            (3, 1, -0.84128),
            (9, 5, -48.96858),
            (17, 10, -65.06102),
            (23, 20, -65.06102),
            (31, 40, -32.17445),
        ],
    ),
    "log of magnitudes, htk=True, norm=None, a shorter Hamming window, center=False": (
        PLAIN
        | {
            "window": 400,
            "window_function": "hamming",
            "hop": 160,
            "mel_scale": "htk",
            "mel_norm": "none",
            "power": 1,
            "center": False,
            "log": "ln",
            "floor": 1e-3,
            "floor_by": "add",
        },
        [(0, 0, -1.31108), (3, 1, 2.47383), (9, 5, 0.29166), (17, 10, -0.9225), (23, 20, -1.00853), (31, 46, -1.43269)],
    ),
    "log10 with an odd window and zeros around": (
        PLAIN
        | {
            "n_fft": 640,
            "window": 501,
            "hop": 160,
            "mel_scale": "htk",
            "padding": "constant",
            "log": "log10",
            "floor": 1e-6,
        },
        [(0, 0, 0.12379), (3, 1, 1.6365), (9, 5, -3.98161), (17, 10, -6.0), (23, 20, -6.0), (31, 50, -3.33359)],
    ),
    "amplitude_to_db": (
        PLAIN | {"power": 1, "floor": 1e-5, "top_db": 40},
        [
            (0, 0, -6.87734),
            (3, 1, -10.02307),
            (9, 5, -40.46814),
            (17, 10, -40.46814),
            (23, 20, -40.46814),
            (31, 40, -40.46814),
        ],
    ),
}
"""Settings, and cells (band, frame, value) that librosa 0.11.0 gives for the chirp."""


@pytest.mark.parametrize("name", LIBROSA)
def test_the_graph_gives_the_numbers_of_librosa(tmp_path: Path, name: str) -> None:
    mel, cells = LIBROSA[name]
    found = through_the_graph(tmp_path, chirp()[None], mel).reshape(32, -1)
    assert found.shape[1] == cells[-1][1] + 1
    for band, frame, value in cells:
        assert found[band, frame] == pytest.approx(value, abs=2e-3), (band, frame)


KALDI = [
    (0, 2, 0.823038, 1.694367),
    (5, 12, 0.903867, 2.501475),
    (11, 31, 0.955794, 3.911143),
    (20, 81, 0.950307, 7.490444),
    (31, 207, 0.983836, 16.652052),
]
"""Band, its highest bin, that bin's weight and the sum, of torchaudio 2.11.0's compliance.kaldi.get_mel_banks."""


def test_filters_over_mel_are_those_of_torchaudios_kaldi() -> None:
    filters = mel_filters(16_000, 512, 32, 0.0, 7000.0, "htk", "none", "mel")
    for band, loudest, height, total in KALDI:
        assert int(filters[band].argmax()) == loudest
        assert float(filters[band].max()) == pytest.approx(height, abs=2e-5)
        assert float(filters[band].sum()) == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("layout", ["bmf", "bfm", "b1mf", "b1fm", "bmf1", "bfm1"])
def test_the_spectrogram_comes_in_the_layout_that_the_encoder_takes(tmp_path: Path, layout: str) -> None:
    mel = PLAIN | {"hop": 500}  # 17 frames of 32 mels
    dims = tuple({"b": "n", "1": 1, "m": 32, "f": 17}[axis] for axis in layout)
    found = through_the_graph(tmp_path, chirp()[None], mel | {"layout": None}, dims)
    due = by_hand(chirp(), mel)
    np.testing.assert_allclose(found[0], (due if layout.replace("1", "") == "bmf" else due.T).ravel(), atol=0.05)


def test_each_mel_band_has_its_own_mean_and_deviation(tmp_path: Path) -> None:
    mel = PLAIN | {"mels": 3, "mean": [1.0, -20.0, 3.0], "std": [2.0, 10.0, 0.5]}
    found = through_the_graph(tmp_path, chirp()[None], mel)
    np.testing.assert_allclose(found[0], by_hand(chirp(), mel).ravel(), atol=0.02)


def test_patches_are_encoded_each_and_averaged(tmp_path: Path) -> None:
    mel = PLAIN | {"patch": {"frames": 16, "hop": 8}, "layout": "bfm"}  # 41 frames: patches from 0, 8, 16 and 24
    x = np.stack([chirp(), chirp()[::-1]])
    found = through_the_graph(tmp_path, x, mel, ("n", 16, 32))
    due = [np.mean([by_hand(row, mel)[:, at : at + 16] for at in (0, 8, 16, 24)], axis=0).T.ravel() for row in x]
    np.testing.assert_allclose(found, due, atol=0.05)


def test_yamnets_frames_begin_at_the_first_sample_and_one_patch_takes_15600(tmp_path: Path) -> None:
    mel = {
        "n_fft": 512,
        "window": 400,
        "hop": 160,
        "frame": "window",
        "center": False,
        "power": 1,
        "mels": 64,
        "fmin": 125,
        "fmax": 7500,
        "mel_scale": "htk",
        "mel_norm": "none",
        "triangles": "mel",
        "log": "ln",
        "floor": 1e-3,
        "floor_by": "add",
        "patch": {"frames": 96, "hop": 48},
        "layout": "bfm",
    }
    found = through_the_graph(tmp_path, chirp(15_600)[None], mel, ("n", 96, 64))
    np.testing.assert_allclose(found[0], by_hand(chirp(15_600), mel).T.ravel(), atol=2e-3)


@pytest.mark.parametrize(
    "dims", [(None,), (8000,), ("n", None), ("n", 8000), (1, 8000), ("n", 1, 8000), ("n", None, None)]
)
@pytest.mark.parametrize("full_scale", [1.0, 32768.0])
def test_a_waveform_goes_in_as_it_is(tmp_path: Path, dims: tuple, full_scale: float) -> None:
    passing_encoder(tmp_path / "encoder.onnx", dims)
    spec = describe(tmp_path, kind="audio", rate_hz=RATE_HZ, window_s=0.5, full_scale=full_scale)
    wrap(spec, tmp_path / "wrapped.onnx")
    count = 1 if len(dims) == 1 or dims[0] == 1 else 2
    x = np.stack([chirp(), -chirp()])[:count]
    np.testing.assert_allclose(run(tmp_path / "wrapped.onnx", x), x * full_scale, rtol=1e-6)


def test_embeddings_of_the_pieces_of_one_waveform_are_averaged(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    save(
        tmp_path / "encoder.onnx",
        nodes,
        [("x", FLOAT, [None])],
        [("y", FLOAT, [None, 20])],
        {"shape": np.array([-1, 20], np.int64)},
    )
    wrap(describe(tmp_path, kind="audio", rate_hz=RATE_HZ, window_s=0.5, pool="mean"), tmp_path / "wrapped.onnx")
    np.testing.assert_allclose(
        run(tmp_path / "wrapped.onnx", chirp()[None])[0], chirp().reshape(400, 20).mean(axis=0), atol=1e-6
    )


@pytest.mark.parametrize(
    ("dims", "says"),
    [
        ((1, 3, 8000), "expected a waveform [N], [B, N] or [B, 1, N]; describe its spectrogram as log_mel"),
        (("n", 1, 64, 96), "expected a waveform"),
        (("n", 15_600), "which is 0.975 s at 16000 Hz, where the YAML has 0.5 s; set window_s: 0.975"),
    ],
)
def test_an_encoder_of_no_such_waveform_is_refused(tmp_path: Path, dims: tuple, says: str) -> None:
    passing_encoder(tmp_path / "encoder.onnx", dims)
    with pytest.raises(WrapError) as error:
        wrap(describe(tmp_path, kind="audio", rate_hz=RATE_HZ, window_s=0.5), tmp_path / "wrapped.onnx")
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("dims", "changes", "says"),
    [
        (
            ("n", 1, 32, 101),
            {},
            "holds no spectrogram of 32 mels and 41 frames; "
            "correct log_mel.mels, hop or window_s (a window_s of 1.25 has 101 frames)",
        ),
        (("n", 1, 41, 32), {"layout": "b1mf"}, "where the YAML describes [batch, 1, 32, 41]; set log_mel.layout: b1fm"),
        (("n", None, None), {}, "fits the layouts bmf, bfm; set log_mel.layout"),
        ((1, 16, 32), {"patch": {"frames": 16, "hop": 8}}, "takes one patch where a window has 4"),
        ((4, 32, 41), {}, "batches of 4; export it with a batch of 1, or of any size"),
    ],
)
def test_an_encoder_of_no_such_spectrogram_is_refused(tmp_path: Path, dims: tuple, changes: dict, says: str) -> None:
    passing_encoder(tmp_path / "encoder.onnx", dims)
    with pytest.raises(WrapError) as error:
        wrap(
            describe(tmp_path, kind="audio", rate_hz=RATE_HZ, window_s=0.5, log_mel=PLAIN | changes),
            tmp_path / "wrapped.onnx",
        )
    assert says in str(error.value) and "\n" not in str(error.value)


MISTAKES = {
    "mel_scale: htk": {"mel_scale": "htk"},
    "mel_norm: none": {"mel_norm": "none"},
    "log: ln": {"log": "ln"},
    "floor_by: add": {"floor_by": "add"},
    "center: false": {"center": False},
    "padding: constant": {"padding": "constant"},
    "power: 1": {"power": 1},
    "periodic: false": {"periodic": False},
    "top_db: 80": {"top_db": 80.0},
    "triangles: mel": {"triangles": "mel"},
    "mel_scale: htk, log_mel.mel_norm: none": {"mel_scale": "htk", "mel_norm": "none"},
}
"""What the error is to name -> how the owner's spectrogram differs from the YAML."""


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistaken_setting_is_found_by_the_reference(tmp_path: Path, name: str) -> None:
    mel, limit = PLAIN | {"layout": "bmf"}, 1e-5  # so low that a window that ends a sample later is seen
    sound = chirp()
    sound[4000:] = 0
    averaging_encoder(tmp_path / "encoder.onnx", 32)
    truth = describe(tmp_path, kind="audio", rate_hz=RATE_HZ, window_s=0.5, log_mel=mel | MISTAKES[name])
    wrap(truth, tmp_path / "truth.onnx")
    np.savez(tmp_path / "ref.npz", input=sound, output=run(tmp_path / "truth.onnx", sound[None])[0])
    assert wrap(truth, tmp_path / "again.onnx", tmp_path / "ref.npz", limit).deviation < limit
    spec = describe(tmp_path, kind="audio", rate_hz=RATE_HZ, window_s=0.5, log_mel=mel)
    with pytest.raises(WrapError) as error:
        wrap(spec, tmp_path / "wrapped.onnx", tmp_path / "ref.npz", limit)
    assert f"with log_mel.{name} it agrees to" in str(error.value)
    assert not (tmp_path / "wrapped.onnx").exists()
