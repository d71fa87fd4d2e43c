"""A bundle is refused unless everything in it verifies, and each refusal is one line that names the file."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from aecf_ros.core.bundle import BundleError, Manifest, load_bundle, load_manifest, sha256, write_manifest

FILES = {"eye.onnx": b"eye", "ear.onnx": b"ear", "head.onnx": b"head", "MODEL_CARD.md": b"card"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory that verifies; its graphs are not looked into here."""
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    subset = {"samples": 10, "temperature": 1.1, "set_threshold": 0.9}
    (tmp_path / "bundle.yaml").write_text(
        yaml.safe_dump(
            {
                "format_version": 1,
                "name": "tiny",
                "labels": ["a", "b"],
                "head": "head.onnx",
                "modalities": [
                    {
                        "name": "camera",
                        "kind": "image",
                        "encoder": "eye.onnx",
                        "embedding_dim": 4,
                        "height": 8,
                        "width": 8,
                    },
                    {
                        "name": "audio",
                        "kind": "audio",
                        "encoder": "ear.onnx",
                        "embedding_dim": 4,
                        "rate_hz": 800,
                        "window_s": 0.5,
                    },
                ],
                "calibration": {
                    "method": "none",
                    "coverage": 0.9,
                    "subsets": {"camera+audio": subset, "camera": subset, "audio": subset},
                },
                "training": {
                    "data": ["made up"],
                    "samples": {"test": 10},
                    "seed": 0,
                    "created": "2026-11-21",
                    "aecf_ros_version": "0.1.0",
                },
                "metrics": {"camera": {"n": 0}},
                "files": {name: sha256(tmp_path / name) for name in FILES},
            }
        )
    )
    return tmp_path


def edit(directory: Path, change: Callable[[dict], object]) -> None:
    fields = yaml.safe_load((directory / "bundle.yaml").read_text())
    change(fields)
    (directory / "bundle.yaml").write_text(yaml.safe_dump(fields))


def refusal(directory: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(directory)
    line = str(caught.value)
    assert "\n" not in line and str(directory) in line and ";" in line  # the place, and what to do
    return line


def test_a_whole_bundle_is_taken(directory: Path) -> None:
    bundle = load_bundle(str(directory))
    assert bundle.manifest.names == ["camera", "audio"]
    assert bundle.manifest.subset_names == ["camera+audio", "camera", "audio", "none"]
    assert bundle.manifest.modalities[0].sample_shape == (8, 8, 3)
    assert bundle.manifest.modalities[1].sample_shape == (400,)
    assert bundle.path("head.onnx").read_bytes() == b"head"


def test_what_is_written_is_read_back_equal(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    manifest = load_manifest(directory)
    elsewhere = tmp_path_factory.mktemp("copy")
    path = write_manifest(manifest, elsewhere)
    assert path.name == "bundle.yaml"
    assert load_manifest(elsewhere) == manifest
    assert isinstance(manifest, Manifest) and yaml.safe_load(path.read_text())["files"] == manifest.files


def test_a_directory_that_is_not_there(directory: Path) -> None:
    assert "no such model directory" in refusal(directory / "nowhere")


def test_a_directory_without_a_manifest(directory: Path) -> None:
    (directory / "bundle.yaml").unlink()
    assert "no bundle.yaml" in refusal(directory)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file(directory: Path, file: str) -> None:
    (directory / file).unlink()
    assert file in (line := refusal(directory)) and "missing" in line


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_not_the_one_that_was_hashed(directory: Path, file: str) -> None:
    (directory / file).write_bytes(FILES[file] + b" ")
    assert file in (line := refusal(directory)) and "SHA-256" in line


@pytest.mark.parametrize(
    "text", ["a: [", "a: b: c", "\t- x", "a: 2026-13-45", "a: " + "[" * 3000, "!!python/object/apply:os.getcwd []"]
)
def test_a_manifest_that_is_not_yaml(directory: Path, text: str) -> None:
    (directory / "bundle.yaml").write_text(text)
    assert "not YAML" in refusal(directory)


def test_a_manifest_that_is_not_text(directory: Path) -> None:
    (directory / "bundle.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    assert "not YAML" in refusal(directory)


@pytest.mark.parametrize(("text", "kind"), [("", "NoneType"), ("- a", "list"), ("just words", "str")])
def test_a_manifest_that_is_not_a_mapping(directory: Path, text: str, kind: str) -> None:
    (directory / "bundle.yaml").write_text(text)
    assert f"expected a mapping, got {kind}" in refusal(directory)


@pytest.mark.parametrize("version", [0, 2, "one", None])
def test_another_format_version(directory: Path, version: object) -> None:
    edit(directory, lambda m: m.update(format_version=version))
    assert "format_version" in (line := refusal(directory)) and repr(version) in line


def _break_modality(**changes: object) -> Callable[[dict], None]:
    return lambda m: m["modalities"][0].update(changes)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("labels", lambda m: m.update(labels="abc")),
        ("labels", lambda m: m.update(labels=["only"])),
        ("labels", lambda m: m.update(labels=["twice", "twice"])),
        ("name", lambda m: m.update(name=7)),
        ("head", lambda m: m.pop("head")),
        ("modalities", lambda m: m.update(modalities=[])),
        ("height", _break_modality(height=0)),
        ("height", _break_modality(height="tall")),
        ("embedding_dim", _break_modality(embedding_dim=-4)),
        ("name", _break_modality(name="Front Camera")),
        ("kind", _break_modality(kind="lidar")),
        ("modality names", _break_modality(name="audio")),
        ("window_s", lambda m: m["modalities"][1].update(window_s=-1)),
        ("coverage", lambda m: m["calibration"].update(coverage=90)),
        ("temperature", lambda m: m["calibration"]["subsets"]["audio"].update(temperature=0)),
        ("calibration.subsets", lambda m: m["calibration"]["subsets"].pop("audio")),
        ("files", lambda m: m["files"].update({"head.onnx": "not a hash"})),
        ("head.onnx", lambda m: m["files"].pop("head.onnx")),
    ],
)
def test_a_wrong_field_is_named(directory: Path, field: str, change: Callable[[dict], None]) -> None:
    edit(directory, change)
    assert field in refusal(directory)


@pytest.mark.parametrize(
    "change", [lambda m: m.update(extra=1), _break_modality(widht=8), lambda m: m["training"].update(pickle="x.pkl")]
)
def test_an_unknown_field(directory: Path, change: Callable[[dict], None]) -> None:
    edit(directory, change)
    assert "no such key" in refusal(directory)


@pytest.mark.parametrize("path", ["../head.onnx", "/etc/hostname", "sub/head.onnx", "..", "a/../head.onnx"])
def test_a_path_that_leaves_the_directory(directory: Path, path: str) -> None:
    (directory.parent / "head.onnx").write_bytes(b"head")

    def escape(manifest: dict) -> None:
        manifest["files"][path] = manifest["files"].pop("head.onnx")
        manifest["head"] = path

    edit(directory, escape)
    refusal(directory)


def test_an_encoder_that_leaves_the_directory(directory: Path) -> None:
    edit(directory, _break_modality(encoder="../eye.onnx"))
    assert "../eye.onnx" in refusal(directory)


def test_manifests_cannot_be_changed_after_they_verified(directory: Path) -> None:
    with pytest.raises(Exception, match="frozen"):
        load_manifest(directory).name = "other"


DRIFT = {
    "levels": [0.05, 0.95],
    "distances": {"camera": [0.1, 0.9], "audio": [0.1, 0.8]},
    "confidence": {"camera": [0.6, 1.0], "audio": [0.6, 1.0]},
}


def test_what_was_added_later_is_optional_and_is_not_written_where_it_is_missing(
    directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    added = {"head_weights", "drift", "refit"}
    without = load_manifest(directory)
    assert all(getattr(without, field) is None for field in added)
    assert not added & set(yaml.safe_load(write_manifest(without, tmp_path_factory.mktemp("without")).read_text()))
    (directory / "head.safetensors").write_bytes(b"weights")
    edit(directory, lambda fields: fields.update(drift=DRIFT, head_weights="head.safetensors"))
    edit(directory, lambda fields: fields["files"].update({"head.safetensors": sha256(directory / "head.safetensors")}))
    found = load_bundle(directory).manifest
    assert found.drift.distances["camera"] == [0.1, 0.9] and found.head_weights == "head.safetensors"
    assert load_manifest(write_manifest(found, tmp_path_factory.mktemp("with")).parent) == found


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: f.update(head_weights="head.safetensors"), "head.safetensors"),
        (lambda f: f.update(drift=DRIFT | {"distances": {"camera": [0.1, 0.9]}}), "drift: expected"),
        (
            lambda f: f.update(drift=DRIFT | {"confidence": {key: [1.0, 0.4] for key in DRIFT["confidence"]}}),
            "ascending order",
        ),
        (lambda f: f.update(drift=DRIFT | {"levels": [0.05, 0.5, 0.95]}), "ascending order"),
    ],
)
def test_what_was_added_later_is_checked_too(directory: Path, change: Callable[[dict], object], named: str) -> None:
    edit(directory, change)
    assert named in refusal(directory)
