"""A head with the evidence gate in fewer operators, for ``head.onnx``.

On a robot the encoders empty the caches between two runs of the head, so that each operator costs about a microsecond
whatever it computes. Therefore all modalities go through stacked weights together, everything that is linear in the
embeddings is one matrix, a bias is the last row of its matrix (its input ends with a 1), and values that depend only on
the presence mask come from a table.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from torch import Tensor, nn

from aecf_ros.fusion.calibration.monotone import soft_lift
from aecf_ros.fusion.experts import DirectionAndLength
from aecf_ros.fusion.gates.reliability import LEAST_DOUBT_LOGIT, EvidenceGate, Reliability
from aecf_ros.fusion.gates.statistics import NEIGHBORS
from aecf_ros.fusion.presence.masking import all_subsets
from aecf_ros.training.export import fast_head_weights as weights

TANH_OF_ONE = 12.0
"""The tanh of this is 1 in float32: it carries a 1 through the layer."""
LEAST, MOST = torch.tensor([-4.0, LEAST_DOUBT_LOGIT]), torch.tensor([1.5, -LEAST_DOUBT_LOGIT])
"""Bounds of log a and of the log-odds of eps, as in ``fusion/gates/reliability.py``."""
OK, NO_STREAM, CONFLICT, LOW_CONFIDENCE, OUT_OF_DISTRIBUTION = range(5)
"""Values of ``abstain_code``; ``aecf_ros.core.bundle.ABSTAIN_REASONS`` has the texts."""


def has_fast_form(head: Head) -> bool:
    """Whether a head can be a :class:`FastHead`: it has the evidence gate, one label a sample and no temperature."""
    gate = head.fusion.gate
    if not isinstance(gate, EvidenceGate) or head.fusion.multilabel:
        return False
    return all(reliability.novelty is None for reliability in gate.reliability) and bool((head.temperatures == 1).all())


class Head(Protocol):
    """What of an ``ExportedHead`` is read."""

    fusion: Any  # of AECF; which gate it has is checked by has_fast_form
    temperatures: Tensor
    set_thresholds: Tensor
    outlier_above: Tensor
    abstain_below: float
    conflict_below: float


class FastHead(nn.Module):
    """An ``ExportedHead`` for which :func:`has_fast_form` holds, rearranged for inference; the same inputs and outputs.

    Shapes: B samples, M modalities of at most D features, C classes, R directions in which distances are measured.

    Args:
        head: its weights are copied.
    """

    # Buffers. Their names are part of the exported file.
    first: Tensor
    per_feature: Tensor
    length: Tensor
    to_landmarks: Tensor
    to_distances: Tensor
    to_statistics: Tensor
    body: Tensor
    trust: Tensor
    unscale: Tensor
    prior: Tensor
    log_prior: Tensor
    inverse_prior: Tensor
    minus: Tensor
    bits: Tensor
    by_pattern: Tensor
    limits: Tensor
    flag_weights: Tensor
    codes: Tensor
    labels: Tensor

    def __init__(self, head: Head) -> None:
        super().__init__()
        fusion = head.fusion
        gates = list(fusion.gate.reliability)
        experts = [[layer for layer in expert if isinstance(layer, nn.Linear)] for expert in fusion.experts]
        self.modalities, self.depth = len(gates), len(experts[0]) - 1
        self.widths = [len(gate.distance.center) for gate in gates]
        self.direction = isinstance(fusion.experts[0][0], DirectionAndLength)
        self.lifts, self.reach = fusion.monotone != "off", fusion.monotone_reach if fusion.monotone == "soft" else None
        self._build_experts(head, gates, experts)
        self._build_gates(gates, head.outlier_above.double())
        self._build_tables(head)

    def _build_experts(self, head: Head, gates: Sequence[Reliability], experts: Sequence[Sequence[nn.Linear]]) -> None:
        wide, rank = max(self.widths), _rank(gates)
        outliers = head.outlier_above.double()
        calibration = [
            [getattr(head, f"{name}_{m}").double() for name in ("centers", "whitener")] for m in range(len(gates))
        ]
        blocks = [
            weights.embedding_blocks(layers[0], gate, centers, whitener, outlier, self.direction)
            for layers, gate, (centers, whitener), outlier in zip(experts, gates, calibration, outliers, strict=True)
        ]
        units, most = experts[0][0].out_features + 1, max(part.shape[1] for block in blocks for part in block[4:])
        self.sizes = [units, rank + 1, rank + wide, 2 * most]
        columns = (units, rank + 1, rank, wide, most, most)
        self._stack("first", [weights.side_by_side(block, columns, wide, self.direction) for block in blocks])
        if self.direction:
            self._keep("per_feature", [[[1.0 / width]] for width in self.widths])
            self._stack("length", [weights.affine(e[0].weight[:, -1:], e[0].bias, carry=1.0) for e in experts])
        for depth in range(1, self.depth + 1):
            carry = 1.0 if depth < self.depth else None
            self._stack(f"expert_{depth}", [weights.affine(e[depth].weight, e[depth].bias, carry) for e in experts])

    def _build_gates(self, gates: Sequence[Reliability], outliers: Tensor) -> None:
        wide, rank = max(self.widths), _rank(gates)
        self._stack("to_landmarks", [weights.to_landmarks(gate, rank) for gate in gates])
        distances = [weights.to_distances(g, outlier, wide, rank) for g, outlier in zip(gates, outliers, strict=True)]
        self._stack("to_distances", distances)
        self._stack("to_statistics", [weights.to_statistics(gate) for gate in gates])
        bodies = [cast(nn.Linear, gate.body[0]) for gate in gates]
        self._stack("body", [weights.affine(body.weight, body.bias, carry=TANH_OF_ONE) for body in bodies])
        # Scaled so that the bounds of log a and of the log-odds of eps are -1 and 1; "unscale" undoes it.
        middle, half = (LEAST + MOST) / 2, (MOST - LEAST) / 2
        scaled = [(g.head.weight / half[:, None], (g.head.bias - middle) / half) for g in gates]
        self._stack("trust", [weights.affine(weight, bias, carry=1.0) for weight, bias in scaled])
        self._keep("unscale", weights.affine(half.diag(), middle))

    def _build_tables(self, head: Head) -> None:
        """The prior, and what depends on the presence mask or on comparisons alone."""
        prior = head.fusion.log_prior.double().softmax(0)
        self.uniform = bool((prior * len(prior) - 1).abs().max() < 1e-6)  # then adding its logarithm changes no softmax
        for name, value in [("prior", prior), ("log_prior", prior.log()), ("inverse_prior", 1 / prior)]:
            self._keep(name, value)
        # In the order of subset_index.
        patterns = [pattern[::-1] for pattern in itertools.product([False, True], repeat=self.modalities)]
        self._keep("minus", [-1.0] * self.modalities)
        self._keep("bits", [2.0**m for m in range(self.modalities)])
        thresholds = head.set_thresholds.tolist()
        self._keep("by_pattern", [_presence_row(*row) for row in zip(patterns, thresholds, strict=True)])
        self._keep("limits", [head.abstain_below, head.conflict_below, *[1.0 + 2**-23] * self.modalities])
        # Flags: low confidence, low agreement, near to training and present of each modality, which are counted.
        count = self.modalities + 1
        self._keep("flag_weights", [1, 2, *[4] * self.modalities, *[4 * count] * self.modalities])
        flags = itertools.product(range(count), range(count), [False, True], [False, True])
        codes = [
            _code(low, conflict, near - (self.modalities - present), present) for present, near, conflict, low in flags
        ]
        self.register_buffer("codes", torch.tensor(codes))
        self.register_buffer("labels", torch.arange(len(prior)).unsqueeze(0))

    def _keep(self, name: str, value: Tensor | Sequence[Any]) -> None:
        self.register_buffer(name, torch.as_tensor(value, dtype=torch.float64).detach().float())

    def _stack(self, name: str, matrices: Sequence[Tensor]) -> None:
        self._keep(name, torch.stack([matrix.detach() for matrix in matrices]))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """An embedding float32 (B, D_m) for each modality, then ``present`` bool (B, M); returns ``HEAD_OUTPUTS``."""
        *raw, present = inputs
        wide, counted = max(self.widths), present.to(raw[0].dtype)
        joined = torch.cat(
            [F.pad(e, (0, wide - w)) if w < wide else e for e, w in zip(raw, self.widths, strict=True)], dim=1
        )
        shape = (-1, self.modalities, 1)
        clean = torch.where(present.reshape(*shape, 1), joined.reshape(*shape, wide), 0.0)
        # An absent modality is zero throughout, biases included: its logits are 0, which is the prior.
        ratio, outlier = self._experts(torch.cat([clean, counted.reshape(*shape, 1)], dim=-1))
        return self._answer(
            ratio.reshape(-1, self.modalities, ratio.shape[-1]), outlier.reshape(-1, self.modalities), present, counted
        )

    def _experts(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Each modality's posterior over the prior (B, M, 1, C), and its distance from training (B, M, 1, 1).

        Args:
            embedding: (B, M, 1, D + 1), ending with a 1 where the modality is present.
        """
        units, whitened, others, centers = torch.split(embedding @ self.first, self.sizes, dim=-1)
        if self.direction:
            clean, carried = torch.split(embedding, [embedding.shape[-1] - 1, 1], dim=-1)
            power = (clean * clean).sum(-1, keepdim=True) * self.per_feature + 1e-6
            units = units * power.rsqrt() + torch.cat([power.log() * carried, carried], dim=-1) @ self.length
        for depth in range(1, self.depth + 1):
            units = torch.relu(units) @ getattr(self, f"expert_{depth}")
        logits = units if self.depth else units[..., :-1]  # (B, M, 1, C)
        least = centers.reshape(-1, self.modalities, 1, 2, self.sizes[-1] // 2).amin(-1)  # (B, M, 1, 2)
        neighbors = torch.topk(whitened @ self.to_landmarks, NEIGHBORS, dim=-1, largest=False, sorted=False).values
        linear = torch.cat([embedding, whitened, others], dim=-1)
        distances = torch.cat([linear * linear, least, neighbors], dim=-1) @ self.to_distances
        seen, outlier = torch.split(distances, [5, 1], dim=-1)
        mean = (torch.softmax(logits, dim=-1) * logits).sum(-1, keepdim=True)
        raw = torch.cat([seen.clamp(min=1.0).log(), logits.logsumexp(-1, keepdim=True), mean], dim=-1)
        hidden = torch.tanh((raw @ self.to_statistics).clamp(-6.0, 6.0) @ self.body)
        trust = ((hidden @ self.trust).clamp(-1.0, 1.0) @ self.unscale).exp()
        a, odds = torch.split(trust, [1, 1], dim=-1)  # inverse temperature, eps / (1 - eps)
        scaled = a * logits if self.uniform else a * logits + self.log_prior
        return (torch.softmax(scaled, dim=-1) * self.inverse_prior + odds) / (odds + 1.0), outlier

    def _answer(self, ratio: Tensor, outlier: Tensor, present: Tensor, counted: Tensor) -> tuple[Tensor, ...]:
        """All outputs, from the posteriors over the prior (B, M, C), 1 where absent, and the distances (B, M)."""
        row = F.embedding((counted @ self.bits).long(), self.by_pattern)  # (B, M + 3)
        share, per_log_count, several, set_threshold = torch.split(row, [self.modalities, 1, 1, 1], dim=1)
        evidence = ratio.log()
        alone = ratio * self.prior
        information = (alone * evidence).sum(-1)  # KL(p_m || prior), (B, M)
        amount = (information + 1e-6) * counted
        weights = amount / amount.sum(-1, keepdim=True).clamp(min=1e-12)
        entropy = (weights * weights.clamp(min=1e-30).log()) @ self.minus
        mean = share.reshape(-1, 1, self.modalities) @ ratio  # (B, 1, C)
        divergence = (share * information).sum(-1, keepdim=True) - (mean * mean.log()) @ self.prior
        agreed = (several - divergence * per_log_count).clamp(0.0, 1.0)

        fused = evidence.sum(1) if self.uniform else evidence.sum(1) + self.log_prior
        probabilities = torch.softmax(fused, dim=-1)
        confidence, best = torch.topk(probabilities, 1, dim=-1)  # (B, 1)
        top = self.labels == best
        if self.lifts and self.modalities > 1:
            lifted = _lifted(confidence, self._surest(alone, evidence, information, counted), agreed, self.reach)
            rest = (1.0 - lifted) / (1.0 + 2**-23 - confidence)
            probabilities, confidence = torch.where(top, lifted, probabilities * rest), lifted
        members = (set_threshold < probabilities) | top
        flags = torch.cat([torch.cat([confidence, agreed, outlier], dim=1) < self.limits, present], dim=1)
        code = torch.index_select(self.codes, 0, (flags.to(ratio.dtype) @ self.flag_weights).long())
        return (
            probabilities,
            confidence.reshape(-1),
            weights,
            entropy,
            agreed.reshape(-1),
            alone,
            members,
            code,
            outlier,
        )

    def _surest(self, alone: Tensor, evidence: Tensor, information: Tensor, counted: Tensor) -> Tensor:
        """(B, 1): the highest confidence of a proper subset, each lifted to its own subsets.

        As in ``fusion/calibration/monotone.py``.
        """
        if self.modalities == 2:
            return alone.amax((1, 2)).reshape(-1, 1)
        subsets = all_subsets(self.modalities)[:-1]
        surest = alone.amax(-1)  # (B, M), then a column more for each larger subset
        for row in range(self.modalities, len(subsets)):
            members = [m for m, used in enumerate(subsets[row]) if used]
            below = [r for r in range(row) if all(a <= b for a, b in zip(subsets[r], subsets[row], strict=True))]
            own = torch.softmax(evidence[:, members].sum(1) + self.log_prior, dim=-1).amax(-1, keepdim=True)
            wanted = surest[:, below].amax(-1, keepdim=True)
            agreed = self._agreed(alone[:, members], information[:, members], counted[:, members])
            surest = torch.cat([surest, _lifted(own, wanted, agreed, self.reach)], dim=1)
        return surest.amax(-1, keepdim=True)

    def _agreed(self, alone: Tensor, information: Tensor, counted: Tensor) -> Tensor:
        """(B, 1): agreement of the present among some modalities; meaningless for one, which has nothing to lift."""
        number = counted.sum(-1, keepdim=True)
        share = counted / number.clamp(min=1.0)
        mean = (share.unsqueeze(1) @ alone).squeeze(1).clamp(min=1e-30)  # 0 where none is present
        divergence = (share * information).sum(-1, keepdim=True) - (mean * (mean.log() - self.log_prior)).sum(
            -1, keepdim=True
        )
        return (1.0 - divergence / number.clamp(min=2.0).log()).clamp(0.0, 1.0)


def _rank(gates: Sequence[Reliability]) -> int:
    """Directions of the modality that has the most."""
    return max(gate.distance.whitening.shape[1] for gate in gates)


def _lifted(confidence: Tensor, wanted: Tensor, agreed: Tensor, reach: float | None) -> Tensor:
    """A confidence raised towards that of the surest subset, softly or, without a reach, all the way."""
    return torch.maximum(confidence, wanted) if reach is None else soft_lift(confidence, wanted, agreed, reach)


def _presence_row(pattern: Sequence[bool], set_threshold: float) -> list[float]:
    """The row of a pattern: shares (M), 1 / log of the number present, whether several are, the set's threshold.

    The threshold is the next smaller float32, because the graph compares with ``<``.
    """
    count = sum(pattern)
    shares = [used / count if count else 1 / len(pattern) for used in pattern]  # any mean but 0, for its logarithm
    just_under = float(np.nextafter(np.float32(set_threshold), np.float32(-1))) if set_threshold > 0 else -1.0
    return [*shares, 1 / math.log(count) if count > 1 else 0.0, float(count > 1), just_under]


def _code(low: bool, conflict: bool, near: int, present: int) -> int:
    """``abstain_code`` where ``near`` of ``present`` modalities are not out of distribution."""
    if present == 0:
        return NO_STREAM
    if near <= 0:
        return OUT_OF_DISTRIBUTION
    if conflict and present > 1:
        return CONFLICT
    return LOW_CONFIDENCE if low else OK
