"""What every room asks of a kind of sensor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter_ns
from types import ModuleType
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
from pydantic import BeforeValidator, SerializeAsAny

from aecf_ros.core.bundle import ManifestEntry, ModalityRecord, of_its_kind
from aecf_ros.health.monitor import SampleReceived
from aecf_ros.health.thresholds import StreamThresholds
from aecf_ros.modalities.faults import ContentFault, Malform
from aecf_ros.modalities.parameters import ParameterRecord


class Raw(Protocol):
    """A message as it came off the wire: not decoded, but in the field names of its kind."""

    @property
    def stamp_ns(self) -> int: ...

    @property
    def received_ns(self) -> int: ...


class ModalitySpec(ModalityRecord):
    """A modality of training data, as in ``dataset.yaml``; each kind has its own subclass.

    ``sources`` are the corpora that its samples come from.
    """

    sources: list[str] = []


AnyModalitySpec = SerializeAsAny[Annotated[ModalitySpec, BeforeValidator(of_its_kind("spec"))]]
"""For fields of pydantic records: validated as the spec of its ``kind``."""


class Timings(Protocol):
    """Takes how long the stages of reading a message last; ``aecf_ros.runtime.trace.Trace`` is one."""

    def add(self, stage: str, duration_ns: int) -> None: ...


class Evidence(ABC):
    """The newest evidence of one modality, ready for its encoder; the pipeline and the trainer both sample it.

    For each message call :meth:`read`, or :meth:`decode` where its content is not measured, and then :meth:`keep`
    if its stamp is plausible. Not thread-safe.

    Args:
        record: name and sizes of the modality.
        trace: takes the durations of ``decode NAME``, ``preprocess NAME`` and ``check NAME``.

    Attributes:
        changed: whether evidence was kept since a caller set it to ``False``.
        stamp_ns: node time of the newest evidence, ``None`` where there is none.
        closely: set by the caller: measure the content of every message.
    """

    accumulates: ClassVar[bool] = False
    """Whether a sample is assembled from many messages, so that none may be skipped."""

    def __init__(self, record: Any, trace: Timings | None = None) -> None:
        self.record, self.trace = record, trace
        self.closely = self.changed = False
        self.stamp_ns: int | None = None

    @abstractmethod
    def decode(self, raw: Raw) -> int:
        """Decode a message, which :meth:`keep` then makes the newest evidence; returns the ns that its data spans.

        Raises:
            DecodeError: it cannot be used.
        """

    @abstractmethod
    def read(self, raw: Raw, now_ns: int) -> SampleReceived:
        """Decode a message and measure its content, at steady time ``now_ns``.

        Raises:
            DecodeError: it cannot be used.
        """

    @abstractmethod
    def keep(self) -> None:
        """Make the message decoded last the newest evidence."""

    @abstractmethod
    def sample(self) -> np.ndarray:
        """The evidence as an encoder takes it, ``(*sample_shape,)``; zeros where there is none."""

    def clear(self) -> None:
        """Forget the evidence."""
        self.changed, self.stamp_ns = False, None

    def settle(self) -> None:  # noqa: B027 (most kinds put nothing off)
        """Do what no prediction waits for."""

    @property
    def received_ns(self) -> int:
        """How much of an assembled sample was received."""
        return 0

    def note(self, stage: str, since_ns: int) -> int:
        """Trace a stage that began at ``since_ns`` of ``perf_counter_ns``; returns that clock."""
        now_ns = perf_counter_ns()
        if self.trace is not None:
            self.trace.add(f"{stage} {self.record.name}", now_ns - since_ns)
        return now_ns


class Modality(ABC):
    """A kind of sensor: all that differs between kinds, in one object.

    A kind is a package ``aecf_ros.modalities.KIND`` with one instance of its subclass, which the registry lists.
    """

    name: ClassVar[str]
    """As ``kind`` has it in manifests and datasets."""
    sensor: ClassVar[str]
    """What a stream is called whose topic does not say."""
    entry: ClassVar[type[ManifestEntry]]
    spec: ClassVar[type[ModalitySpec]]
    thresholds: ClassVar[StreamThresholds] = StreamThresholds()
    """When a stream counts as failing, unless parameters say otherwise."""

    # Messages

    message_types: ClassVar[Mapping[str, str]]
    """Message types that carry it, by their name in parameters; the first is taken where nothing else decides."""
    definitions: ClassVar[tuple[Mapping[str, str], ...]] = ({},)
    """Definitions by type name, for recordings without any. Further mappings are dialects: other types of the same
    names.
    """
    info_type: ClassVar[str] = ""
    """Type of the latched topic that says how to read messages; empty where there is none."""
    described_types: ClassVar[tuple[str, ...]] = ()
    """The message types that cannot be read without an ``info_type``."""

    type_fields: ClassVar[Mapping[str, str]] = {}
    """A field by which a message type is told from another package's of the same name, by type name."""
    serialized: ClassVar[Mapping[str, Callable[[bytes, int], Raw]]] = {}
    """(bytes, arrival in node time) -> record, by the name of the message type in parameters: for messages that are
    read
    from their bytes because a library copies them."""
    topic_suffix: ClassVar[str] = ""
    """Behind the modality's name in the topic that the node subscribes to."""
    queue_depth: ClassVar[int] = 20
    """Messages that a subscription keeps."""
    type_parameter: ClassVar[str] = ""
    """The one of :attr:`parameters` that chooses the message type; empty where there is one type."""
    parameters: ClassVar[tuple[ParameterRecord, ...]] = ()
    """Node parameters of each stream: thresholds of its own by their name, and others."""

    def default_info(self, options: Mapping[str, Any]) -> Any | None:
        """What describes messages until an info arrives, from the node parameters of the stream."""
        return None

    @abstractmethod
    def read(self, message: Any, info: Any | None, received_ns: int) -> Raw:
        """The record of a message of rclpy or rosbags, which arrived at node time ``received_ns``; nothing is copied.

        Raises:
            UnknownFormatError: nothing says how to read it: ``info`` is missing.
        """

    @abstractmethod
    def probe(self, raw: Raw) -> dict[str, Any]:
        """The sizes of a sample, by field name of :attr:`spec`, where no encoder gives them.

        Raises:
            DecodeError: the message cannot be decoded.
        """

    evidence: ClassVar[type[Evidence]]

    # Faults

    content_faults: ClassVar[Mapping[str, type[ContentFault]]] = {}
    """Faults of what messages show, by the name of the fault."""
    malformed: ClassVar[Mapping[str, Malform]] = {}
    """Faults that make messages unusable, by the name of the fault."""

    @abstractmethod
    def edit(self, message: Any, info: Any | None, change: Callable[[np.ndarray], np.ndarray]) -> Any:
        """A copy of a message with its content changed; the encoding stays where it can.

        Raises:
            DecodeError, UnknownFormatError: its content cannot be read.
        """

    # Training data

    column_names: ClassVar[tuple[str, ...]]
    """What a table's column may be called where it is the only one of the kind."""
    file_suffixes: ClassVar[tuple[str, ...]]
    """Lower-case suffixes of the files that a table may name."""

    @abstractmethod
    def read_file(self, file: Path, spec: Any) -> np.ndarray:
        """A file as a sample ``(*sample_shape,)`` of ``spec.stored_dtype``.

        Raises:
            DecodeError: it cannot be read.
            ModuleNotFoundError: a package that reads such files is not installed.
        """

    takes_numbers: ClassVar[bool] = False
    """Whether a cell of a table may list the numbers of a sample."""

    def read_numbers(self, numbers: np.ndarray, spec: Any) -> np.ndarray:
        """A sample from the numbers in a cell, float32 ``(n,)``, of a kind that :attr:`takes_numbers`.

        Raises:
            DecodeError: they are no such sample.
        """
        raise NotImplementedError

    @abstractmethod
    def probe_file(self, file: Path) -> dict[str, Any] | None:
        """The sizes of a sample, by field name of :attr:`spec`, as a file suggests them; ``None`` if it cannot be
        read.
        """

    def sizes_of_input(self, shape: tuple[int, ...], notes: Callable[[], Mapping[str, Any]]) -> dict[str, Any] | None:
        """The sizes of a sample whose encoder takes ``shape``; ``None`` if it takes no such shape.

        Args:
            notes: gives the sizes that the encoder's metadata or manifest names, for what the shape does not tell.
        """
        names = self.spec.SIZES
        return dict(zip(names, shape, strict=True)) if len(shape) == len(names) else None

    def stored(self, sample: np.ndarray) -> np.ndarray:
        """A sample as datasets store it, from one as encoders take it."""
        return sample

    @property
    @abstractmethod
    def corruptions(self) -> ModuleType:
        """The module of its corruptions, which needs torch: ``KINDS``, ``to_float`` and ``from_float``."""
