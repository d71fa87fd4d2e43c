"""Measured quality behind an embedding: the gate sees how unusual it is, the expert does not see it."""

from dataclasses import replace

import pytest
import torch

from aecf_ros.fusion import AECF, CrossFitConfig, ModalitySamples, fit_reliability
from aecf_ros.fusion.gates.quality import Novelty

CLASSES, WIDTH, MEASURED = 4, 8, 3
CONFIG = CrossFitConfig(expert_steps=60, steps=150, unseen_share=0.3)


def with_kinds(count=3000, seed=0):
    """Embeddings with quality columns; half of the samples are of one of three uninformative kinds.

    Each kind shifts one measurement.
    """
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(CLASSES, (count,), generator=generator)
    embedding = 3.0 * torch.eye(CLASSES, WIDTH)[label] + torch.randn(count, WIDTH, generator=generator)
    kind = torch.randint(-3, 3, (count,), generator=generator).clamp(min=-1)
    scrambled = embedding[torch.randperm(count, generator=generator)]
    embedding = torch.where((kind >= 0)[:, None], scrambled, embedding)
    quality = torch.randn(count, MEASURED, generator=generator)
    quality[kind >= 0, kind[kind >= 0]] += 8.0
    return torch.cat([embedding, quality], dim=1), label, kind


def fitted(kinds_are_known=True, config=CONFIG):
    embeddings, label, kind = with_kinds()
    torch.manual_seed(0)
    layer = AECF([WIDTH + MEASURED, WIDTH], CLASSES, quality=(MEASURED, 0), expert_hidden=(16,))
    groups = kind if kinds_are_known else torch.full_like(kind, -1)
    fit_reliability(
        layer,
        0,
        ModalitySamples(embeddings, label, torch.arange(len(label)), groups),
        config,
        torch.Generator().manual_seed(0),
    )
    return layer.eval(), embeddings[kind < 0]


@torch.no_grad()
def doubt(layer, embeddings):
    logits = layer.experts[0](embeddings)
    return layer.gate.reliability[0](embeddings, logits)[1]


def unusual(embeddings):
    """The same embeddings with all measurements moved the other way: no kind in training did."""
    moved = embeddings.clone()
    moved[:, WIDTH:] -= 8.0
    return moved


def test_a_quality_that_no_kind_had_raises_doubt():
    layer, plain = fitted()
    assert (doubt(layer, unusual(plain)) > doubt(layer, plain)).float().mean() > 0.95


@pytest.mark.parametrize("options", [{"kinds_are_known": False}, {"config": replace(CONFIG, quality=False)}])
def test_without_kinds_or_when_told_so_nothing_is_read_into_quality(options):
    layer, plain = fitted(**options)
    assert torch.allclose(doubt(layer, unusual(plain)), doubt(layer, plain), atol=1e-5)


def test_an_expert_does_not_see_quality():
    layer, plain = fitted()
    with torch.no_grad():
        assert torch.equal(layer.experts[0](unusual(plain)), layer.experts[0](plain))


def test_quality_is_counted_for_every_modality():
    with pytest.raises(ValueError, match="one number for each"):
        AECF([11, 8], CLASSES, quality=(3,))


def test_novelty_counts_what_lies_outside_the_usual_range_of_a_measurement():
    generator = torch.Generator().manual_seed(0)
    quality = torch.randn(5000, 3, generator=generator) * torch.tensor([1.0, 100.0, 0.01])
    novelty = Novelty(3)
    novelty.fit(quality)
    inside, outside = novelty(torch.zeros(1, 3)), novelty(torch.tensor([[0.0, 1000.0, 0.0]]))
    assert inside[0, 2] == 0.0
    assert (outside > inside).all()
    ends = torch.tensor([[0.0, 0.0, 0.0], [10.0, 1000.0, 0.1]])
    assert novelty(ends)[1, 2] == pytest.approx(torch.log1p(torch.tensor((10.0 - 2.58) / 5.15)).item(), rel=0.1)


def test_a_layer_with_quality_is_exported(tmp_path):
    import onnxruntime

    layer, plain = fitted()
    present = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    inputs = (unusual(plain)[:4], torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1)), present)

    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, first, second, present):
            return self.layer([first, second], present).logits

    program = torch.onnx.export(Flat().eval(), inputs, dynamo=True, verbose=False)
    program.save(tmp_path / "head.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx")
    feed = {node.name: value.numpy() for node, value in zip(session.get_inputs(), inputs, strict=True)}
    assert torch.allclose(torch.from_numpy(session.run(None, feed)[0]), Flat().eval()(*inputs).detach(), atol=1e-4)
