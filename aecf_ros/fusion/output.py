"""Output of a fusion layer. A NamedTuple, so that torch.export and torch.onnx.export see plain outputs."""

from typing import NamedTuple

from torch import Tensor


class FusionOutput(NamedTuple):
    """One batch of fused predictions.

    logits: [B, C]; softmax (or sigmoid, for multi-label) of them is the prediction, the prior where nothing is present.
    gate_weights: [B, M]; each modality's share of the evidence, 0 where absent, summing to 1 over those present.
    modality_logits: [B, M, C]; logits of each modality alone; the prior where absent.
    entropy: [B]; entropy of the gate weights, in nats.
    confidence: [B]; the largest probability (multi-label: the mean over labels of max(p, 1 - p)).
    """

    logits: Tensor
    gate_weights: Tensor
    modality_logits: Tensor
    entropy: Tensor
    confidence: Tensor
