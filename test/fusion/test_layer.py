"""The AECF layer: presence, the prior, permutations, and the ways it leaves Python."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aecf_ros.fusion import AECF, GATES
from aecf_ros.fusion.presence.masking import masked_softmax, random_subsets


def layer_and_batch(gate="evidence", modalities=2, rows=8, classes=5, **options):
    torch.manual_seed(0)
    dims = [6 + 2 * m for m in range(modalities)]
    layer = AECF(dims, classes, gate=gate, expert_hidden=(16,), **options).eval()
    for parameter in layer.gate.parameters():  # an untrained gate is constant; a test of it must not be
        parameter.data += 0.3 * torch.randn_like(parameter)
    embeddings = [torch.randn(rows, width) for width in dims]
    present = torch.rand(rows, modalities) < 0.6
    present[0], present[1] = True, False
    return layer, embeddings, present


@given(st.integers(1, 5), st.integers(0, 2**31 - 1))
@settings(max_examples=40, deadline=None)
def test_masked_softmax_sums_to_one_where_anything_is_present(modalities, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = 20 * torch.randn(7, modalities, generator=generator)
    present = torch.rand(7, modalities, generator=generator) < 0.5
    weights = masked_softmax(scores, present)
    assert torch.allclose(weights.sum(-1), present.any(-1).float(), atol=1e-6)
    assert (weights[~present] == 0).all()
    shifted = masked_softmax(scores + 3.0, present)
    assert torch.allclose(weights, shifted, atol=1e-5)


def test_random_subsets_are_uniform_and_stay_within_what_is_present():
    present = torch.tensor([[True, True]]).repeat(30_000, 1)
    drawn = random_subsets(present, torch.Generator().manual_seed(0))
    both = (drawn.all(-1)).float().mean().item()
    assert both == pytest.approx(1 / 3, abs=0.02)
    assert drawn.any(-1).all()
    mixed = torch.rand(500, 4) < 0.5
    drawn = random_subsets(mixed)
    assert not (drawn & ~mixed).any()
    assert torch.equal(drawn.any(-1), mixed.any(-1))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("modalities", [1, 2, 3, 4, 5])
def test_absent_embeddings_change_nothing_and_no_modality_gives_the_prior(gate, modalities):
    prior = torch.tensor([0.4, 0.3, 0.1, 0.1, 0.1])
    layer, embeddings, present = layer_and_batch(gate, modalities, prior=prior)
    expected = layer(embeddings, present)
    poisoned = [torch.where(present[:, m, None], e, torch.nan) for m, e in enumerate(embeddings)]
    for got, want in zip(layer(poisoned, present), expected, strict=True):
        assert torch.equal(got, want)
    nothing = ~present.any(-1)
    assert torch.allclose(expected.logits.softmax(-1)[nothing], prior, atol=1e-6)
    assert torch.allclose(expected.modality_logits.softmax(-1)[~present], prior, atol=1e-6)
    assert torch.allclose(expected.gate_weights.sum(-1), present.any(-1).float(), atol=1e-5)
    assert (expected.gate_weights[~present] == 0).all()


@pytest.mark.parametrize("gate", GATES)
def test_one_modality_alone_is_what_its_modality_logits_say(gate):
    layer, embeddings, _ = layer_and_batch(gate, 3)
    everything = torch.ones(8, 3, dtype=torch.bool)
    together = layer(embeddings, everything)
    for m in range(3):
        only = torch.zeros_like(everything)
        only[:, m] = True
        alone = layer(embeddings, only).logits.softmax(-1)
        assert torch.allclose(alone, together.modality_logits[:, m].softmax(-1), atol=1e-5)


@given(st.permutations([0, 1, 2]))
@settings(max_examples=6, deadline=None)
def test_the_evidence_gate_does_not_care_about_the_order_of_modalities(order):
    layer, embeddings, present = layer_and_batch("evidence", 3)
    expected = layer(embeddings, present)
    layer.experts = torch.nn.ModuleList(layer.experts[m] for m in order)
    layer.gate.reliability = torch.nn.ModuleList(layer.gate.reliability[m] for m in order)
    got = layer([embeddings[m] for m in order], present[:, list(order)])
    assert torch.allclose(got.logits, expected.logits, atol=1e-5)
    assert torch.allclose(got.gate_weights, expected.gate_weights[:, list(order)], atol=1e-5)


@pytest.mark.parametrize("gate", GATES)
def test_multilabel_gives_independent_log_odds(gate):
    layer, embeddings, present = layer_and_batch(gate, 2, prior=torch.full((5,), 0.2), multilabel=True)
    out = layer(embeddings, present)
    assert torch.allclose(torch.sigmoid(out.logits)[1], torch.full((5,), 0.2), atol=1e-6)
    assert ((out.confidence >= 0.5) & (out.confidence <= 1.0)).all()


def test_convex_averages_and_additive_adds():
    convex, embeddings, _ = layer_and_batch("convex", 2)
    additive, _, _ = layer_and_batch("additive", 2)
    both = torch.ones(8, 2, dtype=torch.bool)
    a, b = convex(embeddings, both), additive(embeddings, both)
    assert torch.allclose(2 * (a.logits - convex.log_prior), b.logits - additive.log_prior, atol=1e-5)


@pytest.mark.parametrize("gate", GATES)
def test_autocast_keeps_the_output_finite_and_close(gate):
    layer, embeddings, present = layer_and_batch(gate)
    expected = layer(embeddings, present)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = layer(embeddings, present)
    assert torch.isfinite(got.logits).all()
    assert torch.allclose(got.logits.softmax(-1), expected.logits.softmax(-1), atol=0.05)


class Flat(torch.nn.Module):
    """The layer with its embeddings as separate arguments: what an exported graph has."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, camera, audio, present):
        return tuple(self.layer([camera, audio], present))


@pytest.mark.parametrize(("gate", "monotone"), [("evidence", "soft"), ("additive", "off"), ("scheduler", "hard")])
def test_export_compile_and_onnx_agree_with_eager(gate, monotone, tmp_path):
    import onnxruntime

    layer, (camera, audio), present = layer_and_batch(gate, monotone=monotone)
    flat = Flat(layer).eval()
    expected = flat(camera, audio, present)
    batch = {0: torch.export.Dim("batch")}
    exported = torch.export.export(flat, (camera, audio, present), dynamic_shapes=(batch, batch, batch))
    for got, want in zip(exported.module()(camera[:3], audio[:3], present[:3]), expected, strict=True):
        assert torch.allclose(got, want[:3], atol=1e-5)
    compiled = torch.compile(flat, backend="aot_eager", fullgraph=True)
    for got, want in zip(compiled(camera, audio, present), expected, strict=True):
        assert torch.allclose(got, want, atol=1e-5)
    torch.onnx.export(
        flat, (camera, audio, present), dynamo=True, dynamic_shapes=(batch, batch, batch), verbose=False
    ).save(tmp_path / "head.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx")
    audio = torch.where(present[:, 1, None], audio, torch.nan)
    feed = dict(
        zip(
            [i.name for i in session.get_inputs()],
            [camera[:5].numpy(), audio[:5].numpy(), present[:5].numpy()],
            strict=True,
        )
    )
    for got, want in zip(session.run(None, feed), expected, strict=True):
        assert torch.allclose(torch.from_numpy(got), want[:5], atol=1e-4)


def test_unknown_options_say_what_is_known():
    with pytest.raises(ValueError, match="use one of evidence"):
        AECF([4, 4], 3, gate="average")
    with pytest.raises(ValueError, match="monotone"):
        AECF([4, 4], 3, monotone="yes")
