"""Training loss of the layer; each mechanism has its own switch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (PyTorch's own convention)

from aecf_ros.fusion.gates.reliability import EvidenceGate
from aecf_ros.fusion.gates.softmax import gate_samples
from aecf_ros.fusion.layer import AECF
from aecf_ros.fusion.mechanisms.cec import cec_term, sampled_pairs
from aecf_ros.fusion.mechanisms.curriculum import curriculum_rate, mask_dominant
from aecf_ros.fusion.mechanisms.entropy import dropout_lambda, entropy_term, gate_entropy, scheduled_lambda
from aecf_ros.fusion.presence.masking import all_subsets, random_subsets


@dataclass(frozen=True)
class ObjectiveConfig:
    """Terms of the loss beside cross-entropy. Zero or "off" switches a mechanism off.

    joint_weight: cross-entropy of the fused prediction. 0 trains the experts alone, each by its own likelihood.
    expert_weight: cross-entropy of each present modality alone.
    subset_floor: share of rows whose present modalities are replaced by a uniform random subset.
    entropy: "off", "adaptive" (lambda from MC-dropout variance) or "schedule"; only for gates that learn weights.
    entropy_sign: "hinge", "reward" or "penalize"; entropy_target: share of log |S| that the hinge asks for.
    cec_weight: weight of the squared hinge over subset pairs, which adds cross-entropy on each subset with weight
    cec_subset_weight.
    curriculum: "off", "low-entropy" or "high-entropy"; curriculum_rate: its largest probability.
    """

    joint_weight: float = 1.0
    expert_weight: float = 0.0
    subset_floor: float = 0.5
    entropy: str = "off"
    entropy_sign: str = "hinge"
    entropy_target: float = 0.7
    entropy_scale: float = 20.0
    entropy_cap: float = 0.2
    entropy_passes: int = 5
    cec_weight: float = 0.0
    cec_subset_weight: float = 0.3
    curriculum: str = "off"
    curriculum_rate: float = 0.3

    def __post_init__(self) -> None:
        if self.entropy not in ("off", "adaptive", "schedule"):
            raise ValueError(f"entropy {self.entropy!r} is not known; use 'off', 'adaptive' or 'schedule'")


EXPERTS_ONLY = ObjectiveConfig(joint_weight=0.0, expert_weight=1.0, subset_floor=0.0)
PUBLISHED = ObjectiveConfig(entropy="adaptive", cec_weight=5.0, curriculum="low-entropy")


class FusionBatch(NamedTuple):
    """A training batch.

    embeddings: M tensors [B, D_m]. present: bool [B, M].
    targets: int64 [B], or float [B, C]: a distribution for "nothing there", or the labels in {0, 1} of a multi-label
    layer.
    modality_weights: [M], weights of the experts' losses (MWAM); all 1 if left out.
    """

    embeddings: Sequence[Tensor]
    present: Tensor
    targets: Tensor
    modality_weights: Tensor | None = None


class FusionObjective:
    """The training loss, a function of its arguments alone: `FusionObjective(config)(layer, batch)` -> loss, terms."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self.config = config

    def __call__(
        self,
        layer: AECF,
        batch: FusionBatch,
        generator: torch.Generator | None = None,
        *,
        progress: float = 1.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimize (scalar) and its weighted terms.

        progress: share of the training that is done, for the schedule.
        """
        config, present, targets = self.config, batch.present, batch.targets
        clean, logits = layer.expert_logits(batch.embeddings, present)
        terms: dict[str, Tensor] = {}
        if config.expert_weight:
            terms["experts"] = config.expert_weight * self._experts(layer, logits, batch)
        if config.joint_weight:
            shown = self._mask(layer, clean, logits, present, generator)
            evidence, shares = layer.evidence(clean, logits, shown)
            fused = layer.log_prior + evidence.sum(1)
            terms["joint"] = config.joint_weight * label_loss(layer, fused, targets).mean()
            if config.entropy != "off" and not isinstance(layer.gate, EvidenceGate):
                strength = self._entropy_strength(layer, clean, logits, shown, progress)
                entropy, sign = gate_entropy(shares), config.entropy_sign
                terms["entropy"] = entropy_term(entropy, shown, strength, sign=sign, target=config.entropy_target)
        if config.cec_weight:
            terms |= self._cec(layer, clean, logits, batch, generator)
        return torch.stack(list(terms.values())).sum(), terms

    def _experts(self, layer: AECF, logits: Tensor, batch: FusionBatch) -> Tensor:
        present, weights = batch.present, batch.modality_weights
        if weights is None:
            weights = torch.ones(present.shape[1]).to(logits)
        alone = label_loss(layer, (layer.log_prior + logits).flatten(0, 1), _repeat(batch.targets, logits.shape[1]))
        alone = alone.view(present.shape) * present * weights
        return alone.sum() / present.sum().clamp(min=1)

    def _mask(
        self,
        layer: AECF,
        clean: Sequence[Tensor],
        logits: Tensor,
        present: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        config = self.config
        shown = present
        if config.curriculum != "off":
            with torch.no_grad():
                weights = layer.evidence(clean, logits, present)[1]
            rate = curriculum_rate(weights, present, config.curriculum_rate, config.curriculum)
            shown = mask_dominant(weights, present, rate, generator)
        if config.subset_floor:
            drawn = random_subsets(present, generator)
            row = torch.rand(len(present), 1, generator=generator, device=present.device) < config.subset_floor
            shown = torch.where(row, drawn, shown)
        return shown

    def _entropy_strength(
        self, layer: AECF, clean: Sequence[Tensor], logits: Tensor, shown: Tensor, progress: float
    ) -> Tensor | float:
        config, gate = self.config, layer.gate
        if config.entropy == "schedule" or isinstance(gate, EvidenceGate):
            return scheduled_lambda(progress, config.entropy_cap)
        with torch.no_grad():
            samples = gate_samples(gate, clean, logits, shown, config.entropy_passes)
        return dropout_lambda(samples, config.entropy_scale, config.entropy_cap)

    def _cec(
        self,
        layer: AECF,
        clean: Sequence[Tensor],
        logits: Tensor,
        batch: FusionBatch,
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        config, present = self.config, batch.present
        subsets = [torch.tensor(s, device=present.device) for s in all_subsets(present.shape[1])]
        fused = [layer.log_prior + layer.evidence(clean, logits, present & s)[0].sum(1) for s in subsets]
        confidence = torch.stack([layer.confidence(f) for f in fused], dim=1)  # [B, S]
        valid = torch.stack([(present | ~s).all(-1) for s in subsets], dim=1)
        pairs = sampled_pairs(present.shape[1], generator).to(present.device)
        losses = torch.stack([label_loss(layer, f, batch.targets) for f in fused], dim=1)
        return {
            "cec": config.cec_weight * cec_term(confidence, pairs, valid),
            "subsets": config.cec_subset_weight * (losses * valid).sum() / valid.sum().clamp(min=1),
        }


def label_loss(layer: AECF, logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each row, [B]: softmax cross-entropy, or binary cross-entropy averaged over labels."""
    if layer.multilabel:
        return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none").mean(-1)
    return F.cross_entropy(logits, targets, reduction="none")


def _repeat(targets: Tensor, times: int) -> Tensor:
    """Each row `times` in a row: [B * times, ...]."""
    return targets.repeat_interleave(times, dim=0)
