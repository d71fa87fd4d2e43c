"""`aecf calibrate`, `aecf compare` and `aecf export` as they are typed."""

import json
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from aecf_ros.core.bundle import Bundle, load_bundle
from aecf_ros.core.metrics.comparison import HEADER
from aecf_ros.replay.bag.topics import AudioFormat, Reading
from aecf_ros.runtime.backends import make_backend

pytest.importorskip("torch", reason="torch is not installed: only training needs it")

from aecf_ros.commands.calibrate import field_units  # noqa: E402
from test.command_line import aecf, refusal  # noqa: E402

SPANS, SPAN_S = 56, 1.5


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory, new_recording: Callable) -> Path:
    """Spans of 1.5 s that show and say red, green and blue in turn; every fourth is shown and said as another color."""
    recording, label = new_recording().info(0), cycle(["red", "green", "blue"])
    for i in range(SPANS):
        start_s, true = i * SPAN_S, next(label)
        said = "green" if i % 4 == 0 and true != "green" else true
        recording.label(start_s, true)
        for k in range(round(SPAN_S * 10)):
            recording.image(start_s + k * 0.1, said, late_s=0.004).sound(start_s + k * 0.1 + 0.05, said)
    return recording.write(tmp_path_factory.mktemp("field") / "labeled")


@pytest.fixture(scope="module")
def calibrated(drawn_bundle: Path, labeled: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("models") / "here"
    return out, aecf("calibrate", "--model", drawn_bundle, "--bag", labeled, "--out", out)


def test_a_model_that_is_too_sure_here_is_less_so_after_and_all_else_stays(
    drawn_bundle: Path, calibrated: tuple[Path, Result]
) -> None:
    out, done = calibrated
    assert done.exit_code == 0 and "It helps with camera+audio" in done.output and "held-out spans" in done.output
    before, after = load_bundle(drawn_bundle), load_bundle(out)
    said = {"camera": np.array([0.9, 0.02, 0.02], np.float32), "audio": np.array([0.9, 0.02, 0.02], np.float32)}
    sure = [
        make_backend("onnxruntime", bundle, "cpu").fuse(said, [True, True]).confidence for bundle in (before, after)
    ]
    assert sure[1] < sure[0] - 0.02
    manifest = after.manifest
    assert manifest.metrics == before.manifest.metrics and manifest.training == before.manifest.training
    assert manifest.refit.data == ["labeled"] and manifest.refit.spans == SPANS
    assert manifest.refit.after["camera+audio"]["nll"] < manifest.refit.before["camera+audio"]["nll"]
    for file in ("camera_encoder.onnx", "audio_encoder.onnx"):
        assert manifest.files[file] == before.manifest.files[file]
    assert manifest.files["head.onnx"] != before.manifest.files["head.onnx"]
    card = (out / "MODEL_CARD.md").read_text()
    assert "calibration fitted again" in card and f"{SPANS} labeled spans" in card and "The original card." in card


def test_what_was_fitted_again_can_be_fitted_again(
    labeled: Path, calibrated: tuple[Path, Result], tmp_path: Path
) -> None:
    done = aecf("calibrate", "--model", calibrated[0], "--bag", labeled, "--out", tmp_path / "again")
    assert done.exit_code == 0 and "It helps" not in done.output


def test_too_little_data_is_refused_in_one_line(drawn_bundle: Path, red_then_blue: Path, tmp_path: Path) -> None:
    line = refusal("calibrate", "--model", drawn_bundle, "--bag", red_then_blue, "--out", tmp_path / "m")
    assert "50 labeled spans of each subset are needed" in line and "camera has 2 (" in line
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda words, folder: [*words, "--labels", folder / "none.csv"], "none.csv"),
        (lambda words, folder: [*words[:3], "--bag", folder, *words[5:]], "no recording"),
        (lambda words, folder: [*words[:-1], words[2]], "is the bundle itself"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    drawn_bundle: Path, labeled: Path, tmp_path: Path, change: Callable, named: str
) -> None:
    words = ["calibrate", "--model", drawn_bundle, "--bag", labeled, "--out", tmp_path / "m"]
    assert named in refusal(*change(words, tmp_path))


def test_a_recording_without_labels_or_with_others_is_refused(
    drawn_bundle: Path, new_recording: Callable, tmp_path: Path
) -> None:
    plain = new_recording().info(0).image(0.1, "red").sound(0.2, "red").write(tmp_path / "plain")
    assert "no labeled span" in refusal("calibrate", "--model", drawn_bundle, "--bag", plain, "--out", tmp_path / "m")
    recording = new_recording().info(0)
    for i in range(40):
        recording.image(i / 10, "red").sound(i / 10 + 0.05, "red")
    others = recording.label(0.0, "mauve").write(tmp_path / "others")
    assert "mauve" in refusal("calibrate", "--model", drawn_bundle, "--bag", others, "--out", tmp_path / "m")


def test_sound_that_nothing_describes_is_read_as_said_or_as_in_training(
    drawn_bundle: Path, new_recording: Callable, tmp_path: Path
) -> None:
    recording = new_recording()  # without an AudioInfo
    for i in range(40):
        recording.image(i / 10, "red").sound(i / 10 + 0.05, "red")
    path, bundle = recording.label(0.0, "red").write(tmp_path / "undescribed"), load_bundle(drawn_bundle)
    trained = bundle.manifest.training.model_copy(
        update={"config": {"data": {"audio_format": "S16LE", "audio_rate_hz": 800}}}
    )
    remembers = Bundle(bundle.manifest.model_copy(update={"training": trained}), bundle.directory)

    def heard(bundle: Bundle, audio_format: AudioFormat | None = None) -> int:
        (unit,), _ = field_units(bundle, path, None, Reading(audio_format=audio_format))
        return sum(int(batch.present[:, 1].sum()) for batch in unit.batches(8))

    assert heard(bundle) == 0 and heard(bundle, AudioFormat("S16LE", 800, 1)) == heard(remembers) > 0
    line = refusal(
        "calibrate", "--model", drawn_bundle, "--bag", path, "--audio-format", "MP3", "--out", tmp_path / "m"
    )
    assert "audio format 'MP3' is not known" in line


def test_two_models_are_compared_span_by_span(
    drawn_bundle: Path, labeled: Path, calibrated: tuple[Path, Result], tmp_path: Path
) -> None:
    faults = tmp_path / "faults.yaml"
    faults.write_text("- {stream: camera, kind: drop, start_s: 30, end_s: 60}")
    done = aecf(
        "compare",
        drawn_bundle,
        calibrated[0],
        "--bag",
        labeled,
        "--faults",
        faults,
        "--out",
        tmp_path / "compared.json",
    )
    assert done.exit_code == 0 and all(title in done.output for title in HEADER if title)
    assert "no difference shown" in done.output and "second is better" in done.output
    subsets = json.loads((tmp_path / "compared.json").read_text())["subsets"]
    both, alone = subsets["camera+audio"], subsets["audio"]
    assert (
        both["differences"]["nll"]["high"] < 0 and both["differences"]["accuracy"]["finding"] == "no difference shown"
    )
    assert 30 <= both["clusters"] <= 40 and 18 <= alone["clusters"] <= 21
    assert both["second"]["nll"] - both["first"]["nll"] == pytest.approx(
        both["differences"]["nll"]["estimate"], abs=1e-6
    )


def test_models_that_answer_another_question_are_not_compared(
    drawn_bundle: Path, shipped_bundle: Path, labeled: Path
) -> None:
    line = refusal("compare", drawn_bundle, shipped_bundle, "--bag", labeled)
    assert f"{shipped_bundle}: its labels are zero, one" in line and line.endswith(
        "give two models with the same labels in the same order"
    )
    assert aecf("compare", drawn_bundle, drawn_bundle).exit_code == 2


def test_a_recording_with_few_spans_is_compared_without_intervals(drawn_bundle: Path, red_then_blue: Path) -> None:
    done = aecf("compare", drawn_bundle, drawn_bundle, "--bag", red_then_blue)
    assert done.exit_code == 0 and "fewer than 10 spans" in done.output and "no difference shown" not in done.output


def test_two_models_are_compared_on_a_dataset_folder(
    drawn_bundle: Path, calibrated: tuple[Path, Result], tmp_path: Path
) -> None:
    rng, per_part, tones_hz = np.random.default_rng(0), 60, np.array([50.0, 100.0, 200.0])
    labels = np.arange(per_part, dtype=np.int16) % 3
    camera, sound = (
        {"name": "camera", "kind": "image", "height": 8, "width": 8},
        {"name": "audio", "kind": "audio", "rate_hz": 800, "window_s": 0.5},
    )
    for part in ("fusion", "calibration", "test"):
        (tmp_path / part).mkdir()
        images = rng.integers(0, 60, (per_part, 8, 8, 3), dtype=np.uint8)
        images[np.arange(per_part), :, :, labels] += rng.integers(20, 180, (per_part, 1, 1), dtype=np.uint8)
        phase = 2 * np.pi * (tones_hz[labels][:, None] * np.arange(400) / 800 + rng.random((per_part, 1)))
        samples = (rng.uniform(5000, 30000, (per_part, 1)) * np.sin(phase)).astype(np.int16)
        for name, data in (("camera", images), ("audio", samples)):
            np.save(tmp_path / part / f"{name}.npy", data)
            np.save(tmp_path / part / f"{name}_labels.npy", labels)
    (tmp_path / "dataset.yaml").write_text(
        json.dumps({"name": "colors", "labels": ["red", "green", "blue"], "modalities": [camera, sound]})
    )
    done = aecf("compare", drawn_bundle, calibrated[0], "--data", tmp_path, "--out", tmp_path / "compared.json")
    assert done.exit_code == 0, done.output
    subsets = json.loads((tmp_path / "compared.json").read_text())["subsets"]
    assert set(subsets) == {"camera+audio", "camera", "audio"} and subsets["camera"]["clusters"] == per_part
    assert subsets["camera"]["second"]["mean_confidence"] < subsets["camera"]["first"]["mean_confidence"]
