import copy
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from aecf_ros.fusion import AECF
from aecf_ros.training.calibration.calibrate import Calibration
from aecf_ros.training.export.fast_head import FastHead, has_fast_form
from aecf_ros.training.export.head_graph import (
    HEAD_OUTPUTS,
    ExportedHead,
    ExportError,
    _on_the_edge,
    export_onnx,
    verify_head,
)
from aecf_ros.training.onnx_session import open_session

CLASSES = 5
WIDTHS = (6, 9, 4, 7)


def _calibration(widths: tuple[int, ...], tempered: bool = True) -> Calibration:
    rng = np.random.default_rng(0)
    patterns = 2 ** len(widths)
    return Calibration(
        coverage=0.9,
        temperatures=rng.uniform(0.5, 2.0, patterns).astype(np.float32) if tempered else np.ones(patterns, np.float32),
        set_thresholds=np.r_[0, rng.uniform(0.05, 0.6, patterns - 1)].astype(np.float32),
        conflict_below=0.4,
        abstain_below=0.3,
        centers=[rng.normal(size=(CLASSES + 1, width)).astype(np.float32) for width in widths],
        whiteners=[np.eye(width, dtype=np.float32) for width in widths],
        outlier_above=np.full(len(widths), 30.0, np.float32),
        fits=[],
    )


HEADS = {
    "evidence": (2, {"gate": "evidence", "monotone": "soft", "expert_hidden": [16]}, True),
    "additive": (4, {"gate": "additive", "expert_hidden": [16]}, True),
    "lean": (
        2,
        {
            "gate": "evidence",
            "monotone": "soft",
            "monotone_reach": 0.5,
            "expert_hidden": [16, 12],
            "expert_direction": False,
        },
        False,
    ),
    "lean 3": (3, {"gate": "evidence", "monotone": "hard", "expert_hidden": [16]}, False),
}
"""Modalities, options of the layer, whether calibration gave it temperatures."""
ALSO_LEAN = {
    "lean linear": (4, {"gate": "evidence", "monotone": "soft", "monotone_reach": 0.5, "expert_hidden": []}, False),
    "lean 1": (1, {"gate": "evidence", "expert_hidden": [16]}, False),
    "lean prior": (
        2,
        {"gate": "evidence", "expert_hidden": [16], "prior": torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])},
        False,
    ),
}


def _fit(fusion: AECF) -> None:
    """Experts that are sure of something, distances and reliabilities as after a fit, of random embeddings."""
    for expert, reliability in zip(fusion.experts, fusion.gate.reliability, strict=True):
        expert[-1].weight.data *= 8.0  # of experts that say nothing, the shares of the evidence are rounding
        width = len(reliability.distance.center)
        spread = torch.randn(width, width) / width**0.5
        reliability.distance.fit(
            torch.randn(600, width) @ spread + torch.randn(width), torch.randint(0, CLASSES, (600,))
        )
        reliability.mean.normal_()
        reliability.scale.uniform_(0.5, 2.0)
        torch.nn.init.normal_(reliability.head.weight, std=0.2)
        torch.nn.init.normal_(reliability.head.bias, mean=-2.0)


def _head(kind: str) -> tuple[ExportedHead, list[torch.Tensor]]:
    """A head of a kind above and 32 embeddings for each modality. "evidence" and "lean" have the gate and the lift
    that ship.
    """
    count, options, tempered = (HEADS | ALSO_LEAN)[kind]
    torch.manual_seed(count)
    fusion = AECF(WIDTHS[:count], CLASSES, **options)
    if kind.startswith("lean"):
        _fit(fusion)
    head = ExportedHead(fusion, _calibration(WIDTHS[:count], tempered)).eval()
    return head, [2.0 * torch.randn(32, width) for width in WIDTHS[:count]]


class Exported:
    """A head of HEADS, its graph, and some embeddings."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.head, self.embeddings = _head(kind)
        count = len(self.embeddings)
        self.names = [f"sensor{m}" for m in range(count)]
        self.path = folder / "head.onnx"
        inputs = [*self.embeddings, torch.ones(32, count, dtype=torch.bool)]
        export_onnx(
            self.head, inputs, [*(f"embedding_{name}" for name in self.names), "present"], HEAD_OUTPUTS, self.path
        )
        self.session = open_session(self.path)

    def run(self, embeddings: list[torch.Tensor], pattern: tuple[bool, ...]) -> dict[str, np.ndarray]:
        feed = {f"embedding_{name}": e.numpy() for name, e in zip(self.names, embeddings, strict=True)}
        feed["present"] = np.tile(np.array(pattern), (len(embeddings[0]), 1))
        return dict(zip(HEAD_OUTPUTS, self.session.run(list(HEAD_OUTPUTS), feed), strict=True))


@pytest.fixture(scope="module", params=HEADS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(request.param, tmp_path_factory.mktemp("heads"))


def _patterns(exported: Exported) -> list[tuple[bool, ...]]:
    return list(itertools.product([False, True], repeat=len(exported.names)))


def test_the_graph_answers_as_torch_does_for_every_subset(exported):
    for pattern in _patterns(exported):
        found = exported.run(exported.embeddings, pattern)
        with torch.inference_mode():
            due = exported.head(*exported.embeddings, torch.tensor(pattern).expand(32, -1))
        for name, expected in zip(HEAD_OUTPUTS, due, strict=True):
            relative = 1e-4 if name == "distances" else 0  # the only one that may be of any size
            np.testing.assert_allclose(
                found[name], expected.numpy(), atol=1e-4, rtol=relative, err_msg=f"{name} {pattern}"
            )


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -1e30])
def test_an_absent_embedding_changes_nothing(exported, garbage):
    for pattern in _patterns(exported):
        clean = exported.run(exported.embeddings, pattern)
        spoiled = [
            e if used else torch.full_like(e, garbage) for e, used in zip(exported.embeddings, pattern, strict=True)
        ]
        for name, value in exported.run(spoiled, pattern).items():
            np.testing.assert_array_equal(value, clean[name], err_msg=f"{name} {pattern}")


def test_nothing_present_gives_the_prior_and_says_so(exported):
    found = exported.run(exported.embeddings, (False,) * len(exported.names))
    np.testing.assert_allclose(found["probabilities"], 1.0 / CLASSES, atol=1e-6)
    np.testing.assert_allclose(found["modality_probabilities"], 1.0 / CLASSES, atol=1e-6)
    assert (found["gate_weights"] == 0).all() and (found["agreement"] == 0).all()
    assert found["prediction_set"].all() and (found["abstain_code"] == 1).all()


def test_outputs_keep_their_promises(exported):
    for pattern in _patterns(exported)[1:]:
        found = exported.run(exported.embeddings, pattern)
        np.testing.assert_allclose(found["probabilities"].sum(1), 1.0, atol=1e-5)
        np.testing.assert_allclose(found["confidence"], found["probabilities"].max(1), atol=1e-6)
        np.testing.assert_allclose(found["gate_weights"].sum(1), 1.0, atol=1e-5)
        assert (found["gate_weights"][:, ~np.array(pattern)] == 0).all()
        assert found["prediction_set"][np.arange(32), found["probabilities"].argmax(1)].all()
        assert ((found["agreement"] >= 0) & (found["agreement"] <= 1)).all()
        if sum(pattern) == 1:
            alone = found["modality_probabilities"][:, pattern.index(True)]
            np.testing.assert_allclose(found["probabilities"], alone, atol=1e-5)
            assert (found["agreement"] == 0).all()


def test_the_batch_axis_is_dynamic_and_the_file_is_whole_and_names_no_machine(exported):
    one = exported.run([e[:1] for e in exported.embeddings], (True,) * len(exported.names))
    assert one["probabilities"].shape == (1, CLASSES)
    model = onnx.load(exported.path, load_external_data=False)
    assert all(not tensor.external_data for tensor in model.graph.initializer)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert b"site-packages" not in exported.path.read_bytes() and b".py" not in exported.path.read_bytes()


def _code(confidence: float, agreed: float, far: tuple[bool, bool], present: tuple[bool, bool]) -> int:
    head = ExportedHead(AECF([6, 9], CLASSES, gate="additive"), _calibration((6, 9)))
    embeddings = [
        torch.full((1, width), 100.0) if is_far else head.get_buffer(f"centers_{m}")[:1]
        for m, (width, is_far) in enumerate(zip((6, 9), far, strict=True))
    ]
    return head.abstain_code(
        head.distances(embeddings), torch.tensor([present]), torch.tensor([confidence]), torch.tensor([agreed])
    ).item()


def test_abstention_names_its_reason():
    both, near = (True, True), (False, False)
    assert _code(0.9, 0.9, near, both) == 0
    assert _code(0.9, 0.9, near, (False, False)) == 1
    assert _code(0.9, 0.1, near, both) == 2
    assert _code(0.9, 0.0, near, (True, False)) == 0  # one stream cannot conflict
    assert _code(0.2, 0.9, near, both) == 3
    assert _code(0.9, 0.9, (True, True), both) == 4
    assert _code(0.9, 0.9, (True, False), both) == 0  # the other stream is enough to go on
    assert _code(0.9, 0.9, (True, False), (True, False)) == 4


def test_a_graph_of_other_weights_is_refused(exported):
    other = copy.deepcopy(exported.head)
    with torch.no_grad():
        next(other.fusion.experts[0].parameters()).add_(0.5)
    with pytest.raises(ExportError, match="output 'probabilities' differs"):
        verify_head(other, exported.path, exported.embeddings, exported.names)


@pytest.mark.parametrize("kind", ["lean", "lean 3", *ALSO_LEAN])
def test_the_lean_form_computes_the_same(kind):
    head, embeddings = _head(kind)
    assert has_fast_form(head)
    lean = FastHead(head).eval()
    for pattern in itertools.product([False, True], repeat=len(embeddings)):
        present = torch.tensor(pattern).expand(32, -1)
        with torch.inference_mode():
            found, due = lean(*embeddings, present), head(*embeddings, present)
        for name, value, expected in zip(HEAD_OUTPUTS, found, due, strict=True):
            assert value.dtype == expected.dtype
            np.testing.assert_allclose(
                value.numpy(),
                expected.numpy(),
                atol=1e-4,
                rtol=1e-4 if name == "distances" else 0,
                err_msg=f"{name} {pattern}",
            )


@pytest.mark.parametrize("kind", ["evidence", "additive"])
def test_what_the_lean_form_does_not_know_is_exported_as_it_is(kind):
    assert not has_fast_form(_head(kind)[0])  # the first has temperatures


def test_the_lean_form_has_few_operators(exported):
    nodes = len(onnx.load(exported.path).graph.node)
    if has_fast_form(exported.head) and len(exported.names) == 2:
        assert nodes < 120
    else:
        assert nodes > 120  # three modalities have subsets to lift


def test_only_what_rounding_decides_may_differ():
    head = SimpleNamespace(set_thresholds=torch.tensor([0.0, 0.3]), abstain_below=0.5, conflict_below=0.2)
    probabilities = torch.tensor([[0.7, 0.30005, 0.1], [0.4, 0.4, 0.2]])
    rest = [
        torch.tensor([0.7, 0.50005]),
        torch.zeros(2, 1),
        torch.zeros(2),
        torch.tensor([0.4, 0.4]),
        torch.zeros(2, 1, 3),
        None,
        None,
        torch.zeros(2, 1),
    ]
    due = [probabilities, *rest]
    assert _on_the_edge(head, "prediction_set", (True,), due, 1e-4).tolist() == [
        [False, True, False],
        [True, True, False],
    ]
    assert _on_the_edge(head, "abstain_code", (True,), due, 1e-4).tolist() == [False, True]
