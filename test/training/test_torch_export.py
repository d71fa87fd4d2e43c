"""The head as an exported program says what the bundle's graph says, and the lines in the docs use it."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from aecf_ros.core.bundle import load_bundle
from aecf_ros.training.export.head_graph import HEAD_OUTPUTS
from aecf_ros.training.onnx_session import open_session
from test.command_line import aecf, refusal

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


@pytest.fixture(scope="module")
def exported(drawn_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported")
    done = aecf("export", "--torch", drawn_bundle, "--out", out)
    assert done.exit_code == 0 and "head.pt2" in done.output
    return out


def test_the_program_says_what_the_graph_says(exported: Path, drawn_bundle: Path) -> None:
    program = torch.export.load(exported / "head.pt2").module()
    session = open_session(load_bundle(drawn_bundle).path("head.onnx"))
    torch.manual_seed(3)
    for rows in (1, 40):
        camera, audio, present = torch.randn(rows, 3), torch.randn(rows, 3), torch.rand(rows, 2) < 0.6
        with torch.inference_mode():
            due = dict(zip(HEAD_OUTPUTS, program(camera, audio, present), strict=True))
        feeds = {"embedding_camera": camera.numpy(), "embedding_audio": audio.numpy(), "present": present.numpy()}
        for name in ("probabilities", "confidence", "gate_weights", "modality_probabilities"):
            np.testing.assert_allclose(session.run([name], feeds)[0], due[name].numpy(), atol=1e-4, err_msg=name)


def test_the_lines_in_the_docs_run(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [lines] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in lines.splitlines() if line.strip()]) == 5
    monkeypatch.chdir(exported)
    Path("lines.py").write_text(lines.replace("64", "3"))  # the embeddings of the tests' bundle are narrower
    names = runpy.run_path("lines.py")
    assert names["probabilities"].shape == (8, 3) and torch.allclose(
        names["probabilities"].sum(1), torch.ones(8), atol=1e-5
    )
    assert names["gate_weights"][7].tolist() == [1.0, 0.0]


def test_a_bundle_without_weights_is_refused_in_one_line(make_bundle: object, tmp_path: Path) -> None:
    assert "no head.safetensors" in refusal("export", "--torch", make_bundle(), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_encoders_come_along_where_they_are_programs(drawn_bundle: Path, tmp_path: Path) -> None:
    from aecf_ros.training.export.torch_export import export_torch

    bundle = load_bundle(drawn_bundle)
    (tmp_path / "bundle").mkdir()
    for file in bundle.directory.iterdir():
        (tmp_path / "bundle" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "bundle" / "camera_encoder.pt2").write_bytes(b"a program")
    with_program = type(bundle)(
        bundle.manifest.model_copy(update={"files": bundle.manifest.files | {"camera_encoder.pt2": "0" * 64}}),
        tmp_path / "bundle",
    )
    assert [path.name for path in export_torch(with_program, tmp_path / "out")] == ["head.pt2", "camera_encoder.pt2"]
    assert (tmp_path / "out" / "camera_encoder.pt2").read_bytes() == b"a program"
