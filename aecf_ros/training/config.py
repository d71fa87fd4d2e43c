"""The configuration of a training run: frozen records, validated when they are built."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer, model_validator


class ConfigError(ValueError):
    """A configuration that cannot be used; one line naming the key."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Options(_Record):
    """Keyword arguments of a part of the fusion layer, with its defaults; only those that were set go into files."""

    @model_serializer
    def _set_only(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}


class OptimizerConfig(_Record):
    """AdamW under a one-cycle learning rate: linear warm-up over the first tenth, then a cosine to zero."""

    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)


class HeadOptimizerConfig(OptimizerConfig):
    """The same for a head, which is trained longer and in larger batches."""

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=256, ge=2)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)


class EncoderConfig(_Record):
    """The encoder of a modality, or of a kind: trained here, frozen, or none for vectors."""

    onnx: Path | None = None
    """A frozen encoder: written by `aecf wrap-encoder`, or from a bundle. The fields below are then ignored."""
    vector: int | None = Field(default=None, gt=0, le=65_536)
    """The modality is vectors of so many numbers; they are standardized, and the fields below are ignored."""
    embedding_dim: int = Field(default=64, ge=2)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    augment: bool = True
    optimizer: OptimizerConfig = OptimizerConfig()


class DataConfig(_Record):
    """How recordings and tables are read and divided; ignored for a dataset folder, which describes itself."""

    topics: dict[str, str] = {}
    """By modality, by modality and `_info`, and for `label`: topics that their types do not identify."""
    audio_format: str | None = None
    """Sample format (S16LE, ...) of recorded sound that no `AudioInfo` describes; the next two go with it."""
    audio_rate_hz: int = Field(default=16_000, gt=0, le=384_000)
    audio_channels: int = Field(default=1, ge=1, le=64)
    task: Literal["multiclass", "multilabel"] = "multiclass"
    """Whether a moment has one label, or any number of labels, written `dog|siren`."""
    columns: dict[str, str] = {}
    """By modality, and for `label`, `split` and `recording`: columns of a table with other names."""
    protocol: Literal["digits", "scenes"] | None = None
    """Which data set of a folder of the benchmark's NumPy archives, where it holds both."""
    labels: list[str] = []
    """Class names in order; empty for the labels of the data, sorted."""
    nothing: list[str] = []
    """Labels that mean that there is nothing to recognize."""
    stride_s: float = Field(default=0.5, gt=0)
    """Time between two moments of a recording."""
    settle_s: float | None = Field(default=None, ge=0)
    """No moment is taken for so long after a change of label; the longest audio window and 0.25 s by default."""
    max_age_s: float = Field(default=0.35, gt=0)
    """A modality whose newest sample is older is missing at that moment."""
    calibration_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the recordings for the calibration part, unless a column or `parts` assigns them."""
    test_share: float = Field(default=0.2, gt=0, lt=1)
    split_seed: int = Field(default=0, ge=0)
    """Seed of the division into parts."""
    parts: dict[str, str] = {}
    """Recording -> part (fusion, calibration, test), for recordings that are assigned by hand."""


class PairsConfig(_Record):
    """The fixed pairs of the calibration and test parts, as the model is expected to be used."""

    nothing_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of pairs in which one modality shows nothing (an empty card, silence) while the others show the label."""
    calibration: int = Field(default=6000, ge=1)
    """Pairs drawn from the calibration part."""
    test: int = Field(default=6000, ge=1)
    """Pairs drawn from the test part."""


class CrossFitOptions(_Options):
    """Fields of :class:`aecf_ros.fusion.CrossFitConfig`, which documents them."""

    unseen_share: float = Field(default=0.1, ge=0, le=1)
    quality: bool = True
    folds: int = Field(default=6, ge=2)
    expert_steps: int = Field(default=300, ge=1)
    steps: int = Field(default=400, ge=1)
    batch: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)


class ReliabilityConfig(_Record):
    """The reliability of each modality under the evidence gate, fitted after its expert."""

    cross_fit: CrossFitOptions = CrossFitOptions()
    """Options that are left out take the defaults of :class:`aecf_ros.fusion.CrossFitConfig`."""
    deviation: float = Field(default=0.03, gt=0)
    """Deviation of the prior of the shift to the calibration part; small keeps the doubt about unseen corruptions."""
    price: float = Field(default=0.01, ge=0)
    """Nats that a modality's cross-fit may cost on the calibration part; it is dropped if it costs more, as with few
    recordings."""
    violation: float = Field(default=0.025, ge=0, le=1)
    """Share of samples whose confidence may fall when a modality is added, which ``monotone: soft`` aims at."""
    lift_cost: float = Field(default=0.01, ge=0)
    """Nats that this may cost on the calibration part with all modalities."""


class EarlyStoppingConfig(_Record):
    """Stop where the NLL over all subsets of held-out clusters no longer falls, and keep the weights of its least.

    The held-out clusters are of the part ``fusion``: the calibration part stays unseen by what it calibrates.
    """

    share: float = Field(default=0.15, gt=0, lt=1)
    """Of the clusters of each class (labeled spans, in recordings); the experts are not trained on them."""
    patience: int = Field(default=5, ge=1)
    """Epochs without a new least."""
    pairs: int = Field(default=2000, ge=1)
    """Drawn once, from the held-out clusters as training pairs are from the others."""


class LayerOptions(_Options):
    """Keyword arguments of :class:`aecf_ros.fusion.AECF`, which documents them; the data decides the others."""

    gate: Literal["evidence", "additive", "convex", "scheduler"] = "evidence"
    expert_hidden: tuple[Annotated[int, Field(ge=1)], ...] = (512, 256)
    expert_direction: bool = True
    gate_hidden: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    monotone: Literal["off", "soft", "hard"] = "off"
    monotone_reach: float = Field(default=0.05, ge=0)

    @field_validator("monotone", mode="before")
    @classmethod
    def _unquoted_off(cls, monotone: Any) -> Any:
        return "off" if monotone is False else monotone  # YAML reads an unquoted off as false


class HeadConfig(_Record):
    """The fusion head over frozen embeddings."""

    options: LayerOptions = LayerOptions(gate="evidence", monotone="soft")
    """A file that gives options replaces all of them: options that it leaves out take the defaults of the layer."""
    samples_per_epoch: int = Field(default=12_000, ge=1)
    nothing_share: float = Field(default=0.2, ge=0, lt=1)
    """As in ``pairs``, for training: more than expected in use, because a head learns it from few kinds of nothing."""
    all_nothing_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of training samples in which all modalities show nothing; their target is the uniform distribution."""
    field_copies: int = Field(default=1, ge=0)
    """Corrupted copies of each sample of the head's part, each of a kind and severity of its own (field.py)."""
    balanced: bool = True
    """Recorded moments of each class are drawn equally often, and their frequencies become the prior after training.
    Class weights would do the same with steps of very different sizes. False draws moments as they come."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Label smoothing of the experts; calibration restores the confidence."""
    early_stopping: EarlyStoppingConfig | None = None
    """Off by default: the learning rate falls to zero over ``optimizer.epochs``, as for the shipped model."""
    optimizer: HeadOptimizerConfig = HeadOptimizerConfig()
    reliability: ReliabilityConfig = ReliabilityConfig()

    @model_validator(mode="after")
    def _shares(self) -> HeadConfig:
        if self.nothing_share + self.all_nothing_share >= 1:
            raise ValueError("nothing_share and all_nothing_share leave no sample with a label in every modality")
        return self


class CalibrationConfig(_Record):
    """Calibration of the head."""

    coverage: float = Field(default=0.95, gt=0, lt=1)
    """Share of samples whose prediction set is to hold the label."""
    minimum_samples: int = Field(default=100, ge=1)
    """Distinct samples of each modality under which a fit is refused: with 100 the coverage reached at 0.9 has a
    standard deviation of 3 points (it has a Beta distribution, Vovk 2012), and a threshold for 0.99 exists."""
    abstain_below: float = Field(default=0.5, ge=0, le=1)
    """Confidence under which the head abstains; 0.5 is where a calibrated answer is as often wrong as right."""
    conflict_rate: float = Field(default=0.01, ge=0, lt=1)
    """Share of the matching calibration pairs that may be called a conflict."""
    outlier_rate: float = Field(default=0.005, ge=0, lt=1)
    """Share of the calibration samples of each modality that may be called out of distribution."""


class TrainConfig(_Record):
    """Everything about a run but the data and the output."""

    description: str = ""
    intended_use: str = ""
    """Intended and unintended uses, for the model card."""
    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=1, ge=1)
    data: DataConfig = DataConfig()
    encoders: dict[str, EncoderConfig] = {}
    """By modality name, or by kind (`image`, `audio`) for all modalities of that kind without an entry of their own. An
    entry takes the defaults for the fields that it leaves out, not those of its kind."""
    pairs: PairsConfig = PairsConfig()
    head: HeadConfig = HeadConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    mixed_precision: bool = False
    """Encoders and heads are trained under bfloat16 autocast. Slower on most CPUs; not tried on a GPU."""
    programs: bool = False
    """Also write each encoder as a torch exported program, `NAME.pt2`, for `backend: torch`."""

    def encoder(self, name: str, kind: str) -> EncoderConfig:
        """Configuration of one modality's encoder."""
        return self.encoders.get(name) or self.encoders.get(kind) or EncoderConfig()
