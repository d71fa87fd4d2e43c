"""AECF, the fusion layer: from embeddings and a presence mask to one prediction."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from aecf_ros.fusion.calibration.monotone import lift_to_subsets
from aecf_ros.fusion.experts import make_expert
from aecf_ros.fusion.gates.reliability import EvidenceGate, Reliability
from aecf_ros.fusion.gates.softmax import SchedulerGate, SoftmaxGate
from aecf_ros.fusion.mechanisms.entropy import gate_entropy
from aecf_ros.fusion.output import FusionOutput
from aecf_ros.fusion.presence.masking import keep_present

GATES = ("evidence", "additive", "convex", "scheduler")


class AECF(nn.Module):
    """Fusion over the modalities that are present.

    Every modality has an expert (embedding -> logits relative to the prior). A gate scales their evidence, and evidence
    adds: logits = log prior + sum over present m of evidence_m. A row with no modality present gives the prior. Absent
    embeddings are replaced by zero before any arithmetic, so they may hold NaN.

    dims: width D_m of each modality's embedding. classes: C.
    quality: for each modality, how many of the last columns of its embedding are measured signal quality; 0 if left
    out. The gate sees them, the experts do not (see gates/quality.py).
    gate: one of GATES (see gates/softmax.py and gates/reliability.py).
    prior: [C] probabilities (multi-label: of each label); uniform (one half) if left out.
    expert_hidden: hidden units of each expert; () makes experts linear, as in the paper.
    expert_direction: experts that are not linear see an embedding as direction and length (see experts.py).
    multilabel: labels are independent; logits are log-odds.
    monotone: "off"; "soft" raises the confidence to that of the most confident present subset, if it is lower by up to
    `monotone_reach`, and less the less the modalities agree; "hard" always does (see calibration/monotone.py).
    """

    log_prior: Tensor
    gate: EvidenceGate | SchedulerGate | SoftmaxGate

    def __init__(  # noqa: PLR0913 (the options of a layer)
        self,
        dims: Sequence[int],
        classes: int,
        *,
        quality: Sequence[int] | None = None,
        gate: str = "evidence",
        prior: Tensor | None = None,
        expert_hidden: Sequence[int] = (512, 256),
        expert_direction: bool = True,
        gate_hidden: int = 32,
        dropout: float = 0.1,
        multilabel: bool = False,
        monotone: str = "off",
        monotone_reach: float = 0.05,
    ) -> None:
        super().__init__()
        if gate not in GATES:
            raise ValueError(f"gate {gate!r} is not known; use one of {', '.join(GATES)}")
        if monotone not in ("off", "soft", "hard"):
            raise ValueError(f"monotone {monotone!r} is not known; use 'off', 'soft' or 'hard'")
        if multilabel and monotone != "off":
            raise ValueError("monotone confidence is defined for one label per sample; use monotone='off'")
        quality = [0] * len(dims) if quality is None else quality
        if len(quality) != len(dims):
            raise ValueError(
                f"quality {list(quality)} does not fit {len(dims)} modalities; give one number for each, 0 for none"
            )
        self.multilabel, self.monotone, self.monotone_reach = multilabel, monotone, monotone_reach
        self.experts = nn.ModuleList(
            make_expert(width, classes, expert_hidden, dropout, direction=expert_direction, quality=measured)
            for width, measured in zip(dims, quality, strict=True)
        )
        if gate == "evidence":
            self.gate = EvidenceGate(dims, classes, gate_hidden, multilabel=multilabel, quality=quality)
        elif gate == "scheduler":
            self.gate = SchedulerGate(len(dims), gate_hidden, dropout)
        else:
            self.gate = SoftmaxGate(dims, gate_hidden, dropout, additive=gate == "additive")
        if prior is None:
            prior = torch.full((classes,), 0.5 if multilabel else 1.0 / classes)
        self.register_buffer("log_prior", torch.logit(prior) if multilabel else torch.log(prior / prior.sum()))

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> FusionOutput:
        """embeddings: M tensors [B, D_m]; present: bool [B, M]. Every row may have its own presence pattern."""
        embeddings, logits = self.expert_logits(embeddings, present)
        return self.fuse(embeddings, logits, present)

    def expert_logits(self, embeddings: Sequence[Tensor], present: Tensor) -> tuple[list[Tensor], Tensor]:
        """Embeddings with absent rows replaced by zero, and the experts' raw logits [B, M, C] in float32."""
        clean = [keep_present(e, present[:, m]) for m, e in enumerate(embeddings)]
        return clean, torch.stack([expert(e).float() for expert, e in zip(self.experts, clean, strict=True)], dim=1)

    def fuse(self, embeddings: Sequence[Tensor], logits: Tensor, present: Tensor) -> FusionOutput:
        """A prediction from the experts' logits [B, M, C]; `present` may be any subset of their modalities."""
        evidence, weights = self.evidence(embeddings, logits, present)
        fused = self.log_prior + evidence.sum(1)
        if self.monotone != "off":
            reach = self.monotone_reach if self.monotone == "soft" else None
            fused = lift_to_subsets(self.subset_logits(embeddings, logits, present), fused, present, reach)
        return FusionOutput(
            logits=fused,
            gate_weights=weights,
            modality_logits=self.log_prior + self._alone(evidence, logits, present),
            entropy=gate_entropy(weights),
            confidence=self.confidence(fused),
        )

    def evidence(self, embeddings: Sequence[Tensor], logits: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Output of the gate: evidence [B, M, C], 0 where absent, and weights [B, M]."""
        if isinstance(self.gate, EvidenceGate):
            inputs: tuple[object, ...] = (embeddings, logits, present, self.log_prior)
        else:
            inputs = (embeddings, logits, present)
        evidence, weights = self.gate(*inputs)
        return evidence, weights

    def confidence(self, logits: Tensor) -> Tensor:
        """[B] from fused logits [B, C]: the largest probability; multi-label: the mean over labels of max(p, 1 - p)."""
        if self.multilabel:
            return torch.sigmoid(logits.abs()).mean(-1)
        return torch.softmax(logits, dim=-1).amax(-1)

    def subset_logits(
        self, embeddings: Sequence[Tensor], logits: Tensor, present: Tensor
    ) -> Callable[[Tensor], Tensor]:
        """A function from a subset of `present`, bool [B, M], to fused logits [B, C] before any lifting."""
        if not isinstance(self.gate, EvidenceGate):
            return lambda subset: self.log_prior + self.evidence(embeddings, logits, subset & present)[0].sum(1)
        evidence = self.evidence(embeddings, logits, present)[0]  # independent of the other modalities' presence
        nothing = torch.zeros_like(evidence)
        return lambda subset: self.log_prior + torch.where((subset & present).unsqueeze(-1), evidence, nothing).sum(1)

    def reliability(self, modality: int) -> Reliability:
        """The reliability of one modality, of an evidence gate."""
        assert isinstance(self.gate, EvidenceGate)
        reliability = self.gate.reliability[modality]
        assert isinstance(reliability, Reliability)
        return reliability

    def _alone(self, evidence: Tensor, logits: Tensor, present: Tensor) -> Tensor:
        """Evidence of each modality when it is the only one present: [B, M, C]. A softmax gate then has weight 1."""
        if isinstance(self.gate, EvidenceGate):
            return evidence
        return torch.where(present.unsqueeze(-1), logits, torch.zeros_like(logits))
