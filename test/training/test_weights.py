"""The head's weights as they lie in a bundle make the module again that its graph was exported from."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from aecf_ros.core.bundle import Bundle, BundleError, load_bundle, sha256
from aecf_ros.training.export.head_graph import HEAD_OUTPUTS
from aecf_ros.training.export.head_weights import HEAD_WEIGHTS, load_head
from aecf_ros.training.onnx_session import open_session
from test.drawn_model import NAMES, write_model


@pytest.fixture(scope="module", params=["evidence", "additive"])
def bundle(request: pytest.FixtureRequest, drawn_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    if request.param == "evidence":
        return load_bundle(drawn_bundle)
    return write_model(tmp_path_factory.mktemp("weights") / "additive", {"gate": "additive", "expert_hidden": [8]})


def test_the_module_made_of_them_says_what_the_graph_says(bundle: Bundle) -> None:
    head, session = load_head(bundle), open_session(bundle.path("head.onnx"))
    torch.manual_seed(1)
    embeddings = [torch.randn(64, 3) for _ in NAMES]
    for pattern in [(True, True), (True, False), (False, True), (False, False)]:
        present = torch.tensor(pattern).expand(64, -1).contiguous()
        with torch.inference_mode():
            due = dict(zip(HEAD_OUTPUTS, head(*embeddings, present), strict=True))
        feed = {f"embedding_{n}": e.numpy() for n, e in zip(NAMES, embeddings, strict=True)} | {
            "present": present.numpy()
        }
        for name, found in zip(HEAD_OUTPUTS, session.run(list(HEAD_OUTPUTS), feed), strict=True):
            if found.dtype == np.float32:
                np.testing.assert_allclose(found, due[name].numpy(), rtol=1e-4, atol=1e-4, err_msg=f"{name} {pattern}")
            else:  # rounding may take a row over a threshold
                assert (found != due[name].numpy()).reshape(64, -1).any(1).sum() <= 1, name


def test_what_the_calibration_part_decided_travels_along(bundle: Bundle) -> None:
    fusion = load_head(bundle).fusion
    assert (fusion.monotone, fusion.monotone_reach) == (
        ("soft", 0.07) if bundle.manifest.name == "drawn" else ("off", 0.05)
    )
    assert not fusion.training


def spoiled(bundle: Bundle, folder: Path, content: bytes) -> Bundle:
    """The same bundle with other bytes as weights, hashed."""
    for file in bundle.directory.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / HEAD_WEIGHTS).write_bytes(content)
    fields = yaml.safe_load((folder / "bundle.yaml").read_text())
    fields["files"][HEAD_WEIGHTS] = sha256(folder / HEAD_WEIGHTS)
    (folder / "bundle.yaml").write_text(yaml.safe_dump(fields))
    return load_bundle(folder)


def test_what_is_not_such_a_file_is_refused_in_one_line(bundle: Bundle, tmp_path: Path) -> None:
    whole = bundle.path(HEAD_WEIGHTS).read_bytes()
    for content in (b"", b"\x80\x04.", whole[:-100], whole.replace(b'"classes', b'"glasses')):
        tmp_path.mkdir(exist_ok=True)
        with pytest.raises(BundleError) as refusal:
            load_head(spoiled(bundle, tmp_path, content))
        assert HEAD_WEIGHTS in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_bundle_without_them_says_so(bundle: Bundle) -> None:
    without = Bundle(bundle.manifest.model_copy(update={"head_weights": None}), bundle.directory)
    with pytest.raises(BundleError, match="no head.safetensors"):
        load_head(without)
