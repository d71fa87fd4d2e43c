"""The model bundle: a directory of ONNX graphs and a manifest, loaded only if all of it verifies.

Nothing in a bundle is executable or unpickled. ``bundle.yaml`` is validated against :class:`Manifest`, and the SHA-256
of every file it names is checked before the file is opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise, product
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from aecf_ros.core.types import subset_name
from aecf_ros.core.yaml_records import describe, read_mapping, validate_record

FORMAT_VERSION = 1
MANIFEST = "bundle.yaml"
_REMEDY = "restore it or train the bundle again"
ABSTAIN_REASONS = ("", "no usable stream", "modalities conflict", "low confidence", "out of distribution")
"""Meaning of the head's ``abstain_code``."""


class BundleError(ValueError):
    """A bundle that cannot be used; names the file, what is wrong and what to do."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModalityRecord(_Record):
    """One sensor: its name, its kind, and in the subclass of a kind the sizes of a sample.

    Class attributes say what is the same for all sensors of a kind.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: str

    SIZES: ClassVar[tuple[str, ...]]
    """Names of the fields that hold the sizes of a sample."""
    input_name: ClassVar[str]
    """Name of an encoder's input."""
    input_dtype: ClassVar[np.dtype]
    """What an encoder takes, one sample being ``(*sample_shape,)``."""
    stored_dtype: ClassVar[np.dtype]
    """What datasets store."""
    paces_predictions: ClassVar[bool] = False
    """Whether each message is a new picture of the scene, so that predictions follow its rate."""

    @property
    def sizes(self) -> dict[str, Any]:
        """The sizes of a sample, by field name."""
        return {name: getattr(self, name) for name in self.SIZES}

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample, without the batch axis."""
        raise NotImplementedError

    @property
    def size_text(self) -> str:
        """The sizes in words, for people."""
        raise NotImplementedError

    @property
    def span_s(self) -> float:
        """Seconds that one sample spans; 0 for what is of one moment."""
        return 0.0


class ManifestEntry(ModalityRecord):
    """A modality in ``bundle.yaml``; each kind has its own subclass in ``aecf_ros.modalities``."""

    encoder: str
    embedding_dim: int = Field(gt=0)


_REGISTRY = "aecf_ros.modalities.registry"
"""Imported by name when the first record is read, because ``core`` imports no other room."""


def of_its_kind(record: Literal["entry", "spec"]) -> Callable[[Any], Any]:
    """A validator of fields as the record of their ``kind``: its entry in a manifest, or its spec in a dataset."""

    def validate(fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        kinds, kind = import_module(_REGISTRY).MODALITIES, fields.get("kind")
        if kind not in kinds:
            raise ValueError(f"kind: {kind!r} is none of {', '.join(kinds)}")
        try:
            return getattr(kinds[kind], record).model_validate(fields)
        except ValidationError as error:
            raise ValueError(describe(error, getattr(kinds[kind], record))) from None

    return validate


class SubsetCalibration(_Record):
    """Calibration of one presence pattern."""

    samples: int = Field(ge=0)
    temperature: float = Field(gt=0)
    set_threshold: float


class CalibrationSummary(_Record):
    """Summary of the calibration in the head graph, for people and for the ``coverage`` field of a prediction."""

    method: str
    coverage: float = Field(gt=0, lt=1)
    subsets: dict[str, SubsetCalibration]


class TrainingSummary(_Record):
    """Provenance of a bundle."""

    data: list[str]
    samples: dict[str, int]
    seed: int
    config: dict[str, Any] = {}
    created: str
    aecf_ros_version: str


class DriftReference(_Record):
    """Distributions of the calibration data, with which live data is compared: values at the quantiles ``levels``.

    By modality: ``distances`` from the head's output of that name; ``confidence`` of the modality alone, when it
    recognizes something.
    """

    levels: list[float] = Field(min_length=2)
    distances: dict[str, list[float]]
    confidence: dict[str, list[float]]

    @model_validator(mode="after")
    def _in_order(self) -> DriftReference:
        for values in (self.levels, *self.distances.values(), *self.confidence.values()):
            if len(values) != len(self.levels) or not all(a <= b for a, b in pairwise(values)):
                raise ValueError("drift: each list needs one value for each level, in ascending order")
        return self


class RefitSummary(_Record):
    """Recalibration to a recording by ``aecf calibrate``: metrics of held-out spans, before and after."""

    data: list[str]
    spans: int = Field(gt=0)
    created: str
    before: dict[str, dict[str, float | int]]
    after: dict[str, dict[str, float | int]]


class Manifest(_Record):
    """The contents of ``bundle.yaml``.

    Fields with a default were added later; older bundles lack them, and the default is not written.
    """

    format_version: Literal[1]
    name: str
    description: str = ""
    task: Literal["multiclass", "multilabel"] = "multiclass"
    """Whether exactly one label is true, or any number of them."""
    labels: list[str] = Field(min_length=2)
    modalities: list[SerializeAsAny[Annotated[ManifestEntry, BeforeValidator(of_its_kind("entry"))]]] = Field(
        min_length=1, max_length=8
    )
    head: str
    head_weights: str | None = None
    """safetensors file that the head was exported from (``aecf_ros.training.export.head_weights``)."""
    calibration: CalibrationSummary
    drift: DriftReference | None = None
    refit: RefitSummary | None = None
    training: TrainingSummary
    metrics: dict[str, dict[str, float | int]]
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        names = [m.name for m in self.modalities]
        if len(set(names)) != len(names):
            raise ValueError(f"modality names {names} repeat; give each its own")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels repeat; give each class its own")
        for file in [
            self.head,
            *([self.head_weights] if self.head_weights else []),
            *(m.encoder for m in self.modalities),
        ]:
            if file not in self.files:
                raise ValueError(f"'{file}' has no SHA-256 under 'files'")
        for file in self.files:
            if Path(file).name != file:
                raise ValueError(f"file name '{file}' leaves the bundle directory")
        subsets = set(self.subset_names) - {"none"}
        if set(self.calibration.subsets) != subsets:
            raise ValueError(f"calibration.subsets: expected {sorted(subsets)}, got {sorted(self.calibration.subsets)}")
        if self.drift is not None and not set(self.drift.distances) == set(self.drift.confidence) == set(names):
            raise ValueError(
                f"drift: expected {sorted(names)}, "
                f"got {sorted(self.drift.distances)} and {sorted(self.drift.confidence)}"
            )
        return self

    @property
    def names(self) -> list[str]:
        """Modality names, in the order of the presence mask."""
        return [m.name for m in self.modalities]

    @property
    def lead_camera(self) -> str | None:
        """Name of the first camera, whose frames pace the predictions; ``None`` where there is none."""
        return next((m.name for m in self.modalities if m.paces_predictions), None)

    @property
    def subset_names(self) -> list[str]:
        """Every presence pattern, the full one first and ``none`` last."""
        patterns = product([True, False], repeat=len(self.modalities))
        return [subset_name(self.names, p) for p in patterns]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: its manifest and its directory."""

    manifest: Manifest
    directory: Path

    def path(self, file: str) -> Path:
        """Path of one of the bundle's files."""
        return self.directory / file


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as f:
        return (
            hashlib.file_digest(f, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else hashlib.sha256(f.read()).hexdigest()
        )


def load_manifest(directory: Path | str) -> Manifest:
    """Read and validate ``bundle.yaml``, without the other files.

    Raises:
        BundleError: no such directory or manifest, not YAML, or fields that are missing, unknown or inconsistent.
    """
    directory = Path(directory)
    path = directory / MANIFEST
    if directory.is_file():
        raise BundleError(f"{directory}: is a file; name the directory that holds {MANIFEST}")
    if not directory.is_dir():
        raise BundleError(
            f"{directory}: no such model directory; name one that holds {MANIFEST}, for example models/av_digits"
        )
    if not path.is_file():
        raise BundleError(f"{directory}: no {MANIFEST} in it; a bundle is written by `aecf train`")
    fields = read_mapping(path, BundleError, _REMEDY)
    if fields.get("format_version") != FORMAT_VERSION:
        raise BundleError(
            f"{path}: format_version {fields.get('format_version')!r} where this aecf_ros reads {FORMAT_VERSION}; "
            "export the bundle with a matching version"
        )
    return validate_record(fields, Manifest, path, BundleError, _REMEDY)


def load_bundle(directory: Path | str) -> Bundle:
    """Load a manifest and verify every file it names.

    Raises:
        BundleError: as :func:`load_manifest`, and for a file that is missing or whose SHA-256 differs.
    """
    directory = Path(directory)
    manifest = load_manifest(directory)
    for file, digest in manifest.files.items():
        path = directory / file
        if not path.is_file():
            raise BundleError(f"{path}: missing, though {MANIFEST} names it; restore it or train the bundle again")
        actual = sha256(path)
        if actual != digest:
            raise BundleError(
                f"{path}: SHA-256 is {actual[:12]}..., {MANIFEST} says {digest[:12]}...; "
                "restore the file or train the bundle again"
            )
    return Bundle(manifest, directory)


def write_manifest(manifest: Manifest, directory: Path | str) -> Path:
    """Write ``bundle.yaml`` into ``directory``, which must already hold the files."""
    path = Path(directory) / MANIFEST
    fields = manifest.model_dump(mode="json")
    # So that older versions of aecf_ros, which refuse unknown fields, can read it.
    fields = {
        key: value for key, value in fields.items() if value is not None and (key, value) != ("task", "multiclass")
    }
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=120)
    path.write_text(text, encoding="utf-8")
    return path
