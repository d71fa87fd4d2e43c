"""What a training run works on, wherever it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aecf_ros.core.moments import Unit
from aecf_ros.training.datasets import ModalitySpec


@dataclass(frozen=True)
class Corpus:
    """Labelled data in parts that share no recording.

    Attributes:
        name: of the data, for people.
        labels: class names.
        modalities: in the order of the presence mask.
        parts: ``fusion``, ``calibration`` and ``test``, and ``encoders`` where encoders can be trained on it too.
        paired: whether the modalities of a moment belong together, as in a recording. Where not, each unit holds one
            modality, which its attribute ``modality`` names, and modalities are paired by label.
        sources: where the data comes from, a line each.
        description: one line for the bundle.
        warnings: what was left out and what may harm a model, a line each.
    """

    name: str
    labels: Sequence[str]
    modalities: Sequence[ModalitySpec]
    parts: Mapping[str, Sequence[Unit]]
    paired: bool
    sources: Sequence[str] = ()
    description: str = ""
    warnings: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        """Modality names."""
        return [m.name for m in self.modalities]

    @property
    def classes(self) -> int:
        """Number of labels."""
        return len(self.labels)
