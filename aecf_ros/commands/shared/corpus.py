"""Labeled data of any kind as a corpus: a dataset folder, a table, or recordings. What lies at a path decides which
it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from aecf_ros.commands.shared.terminal import bars_on_stderr
from aecf_ros.modalities.base import ModalitySpec
from aecf_ros.replay.bag.discovery import find_recordings
from aecf_ros.replay.bag.errors import BagError, UnreadableBag
from aecf_ros.replay.bag.probe import find_modalities
from aecf_ros.replay.bag.topics import AudioFormat, Reading
from aecf_ros.replay.samples import Scan, scan_recording
from aecf_ros.replay.scoring.ground_truth import LabelError
from aecf_ros.training.config import DataConfig
from aecf_ros.training.data.archives import archives_corpus, archives_in
from aecf_ros.training.data.classes import checked_corpus, naming_of
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.data.npy_dataset import DATASET, DatasetError
from aecf_ros.training.data.npy_units import folder_corpus
from aecf_ros.training.data.split import SPLIT_PARTS, given_parts, split_recordings
from aecf_ros.training.data.table import find_table, table_corpus

DEFAULT_CONFIG = DataConfig()
Advance = Callable[[int, int, str], None]
"""Called with the number of recordings looked over, the number of all, and the name of the next."""


def open_corpus(
    path: Path | str,
    modalities: Sequence[ModalitySpec] | None = None,
    config: DataConfig = DEFAULT_CONFIG,
    progress: Advance = lambda done, total, name: None,
) -> Corpus:
    """Open labeled data, and divide it into parts that share no recording.

    Args:
        path: a folder that holds ``dataset.yaml``, or the NumPy archives of the benchmark; recordings, as a folder
        of them or one; or a table.
        modalities: what the encoders take. A dataset folder knows itself; where recordings and tables are to show
        what they hold, their own sizes.

    Raises:
        DatasetError: the data cannot be used; one line that says what was found and what to do.
    """
    path = Path(path)
    if not path.exists():
        raise DatasetError(
            f"{path}: no such file or folder; name a dataset folder, a table or a folder of recordings with --data"
        )
    if (path / DATASET).is_file() and config.task == "multilabel":
        raise DatasetError(
            f"{path}: data.task is multilabel, and a dataset folder holds one label for each sample; "
            f"give a table or recordings"
        )
    if (path / DATASET).is_file():
        return folder_corpus(path, modalities)
    if archives_in(path):
        return archives_corpus(path, modalities, config)
    if recordings := find_recordings(path):
        try:
            return _recordings_corpus(path, recordings, modalities, config, progress)
        except (BagError, LabelError) as error:
            raise DatasetError(str(error)) from None
    if (table := find_table(path)) is not None:
        return table_corpus(table, modalities, config)
    held = ", ".join(sorted(p.name for p in path.iterdir())[:5]) if path.is_dir() else "one file"
    raise DatasetError(
        f"{path}: neither {DATASET}, nor recordings (rosbag2 directories, .mcap, .db3), nor one table "
        f"(.csv, .parquet); it holds {held or 'nothing'}"
    )


def open_corpus_watched(path: Path | str, modalities: Sequence[ModalitySpec] | None, config: DataConfig) -> Corpus:
    """:func:`open_corpus` with a progress bar, where standard error is a terminal."""
    with bars_on_stderr() as bar:
        task = bar.add_task("looking over", total=None)
        return open_corpus(
            path,
            modalities,
            config,
            lambda done, total, name: bar.update(task, completed=done, total=total, description=name),
        )


def reading_of(config: DataConfig) -> Reading:
    """How a training configuration reads recordings."""
    if config.audio_format is None:
        return Reading(config.topics)
    return Reading(config.topics, AudioFormat(config.audio_format, config.audio_rate_hz, config.audio_channels))


def _scan(
    recordings: Mapping[str, Path], modalities: Sequence[ModalitySpec], reading: Reading, progress: Advance
) -> tuple[list[Scan], list[str]]:
    """Look over every recording; those that cannot be read become warnings."""
    scans: list[Scan] = []
    unreadable: list[str] = []
    for i, (name, path) in enumerate(recordings.items()):
        progress(i, len(recordings), name)
        try:
            scans.append(scan_recording(name, path, modalities, reading))
        except UnreadableBag as error:
            unreadable.append(str(error))
    if not scans:
        raise DatasetError(unreadable[0])
    _refuse_copies(scans)
    return scans, [
        *(f"{line}; it is left out" for line in unreadable),
        *(line for scan in scans for line in scan.problems),
    ]


def _recordings_corpus(
    path: Path,
    recordings: dict[str, Path],
    modalities: Sequence[ModalitySpec] | None,
    config: DataConfig,
    progress: Advance,
) -> Corpus:
    reading = reading_of(config)
    if modalities is None:
        held = find_modalities(recordings.values(), reading)
        modalities = [probed.spec for probed in held]
        reading = replace(reading, topics={**{probed.spec.name: probed.topic for probed in held}, **reading.topics})
        if not modalities:
            raise DatasetError(
                f"{path}: no recording holds pictures, sound or vectors that can be read; `ros2 bag "
                f"info` shows what they hold"
            )
    scans, warnings = _scan(recordings, modalities, reading, progress)
    warnings += _missing_topics(path, scans, modalities)
    unlabeled = [scan for scan in scans if not scan.spans]
    if len(unlabeled) == len(scans):
        raise DatasetError(
            f"{path}: no labels: no topic of type std_msgs/msg/String with 'label' in its name says "
            f"any, and no recording has a CSV of "
            "start_s,end_s,label beside it (NAME.csv); write one, or name the topic with data.topics.label=/..."
        )
    warnings += [f"{scan.path}: nothing in it is labeled; it is left out" for scan in unlabeled]
    naming = naming_of(str(path), (span.label for scan in scans for span in scan.spans), config)
    units = []
    for scan in scans:
        unit = scan.unit(modalities, naming.index, config.stride_s, config.settle_s, config.max_age_s)
        if len(unit.labels):
            units.append(unit)
        elif scan.spans:
            warnings.append(
                f"{scan.path}: no span lasts longer than data.settle_s, so that no moment is left; it is left out"
            )
    if not units:
        raise DatasetError(
            f"{path}: no labeled span lasts longer than the settling after a change of label; label "
            f"longer, or lower data.settle_s"
        )
    counts = {u.recording: naming.counts(u.labels) for u in units}
    parts = split_recordings(counts, config, given_parts(counts, config))
    name, of_part = (
        path.resolve().name,
        {part: [u for u in units if parts[u.recording] == part] for part in SPLIT_PARTS},
    )
    return checked_corpus(path, naming, modalities, of_part, [f"{name}: {len(units)} recordings"], warnings)


def _refuse_copies(scans: Sequence[Scan]) -> None:
    first: dict[str, Scan] = {}
    for scan in scans:
        other = first.setdefault(scan.content, scan)
        if other is not scan:
            raise DatasetError(
                f"{scan.path} holds the same as {other.path}: in two parts a copy is leakage, and a "
                f"model is tested on what it has seen; remove one"
            )


def _missing_topics(path: Path, scans: Sequence[Scan], modalities: Sequence[ModalitySpec]) -> list[str]:
    warnings = []
    for m in modalities:
        without = [scan for scan in scans if m.name in scan.missing]
        if len(without) == len(scans):
            held = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(scans[0].types.items()))
            raise DatasetError(
                f"{path}: no recording has a topic for '{m.name}' ({m.kind}); name one with "
                f"data.topics.{m.name}=/..., or leave that encoder out; "
                f"{scans[0].name} holds {held}"
            )
        silent = [scan for scan in scans if m.name in scan.undescribed]
        if len(without) + len(silent) == len(scans):
            topic = silent[0].topics.streams[m.name]
            raise DatasetError(
                f"{path}: nothing says how to read the sound of '{m.name}': {silent[0].name} has "
                f"{topic} without an AudioInfo; "
                "say it with data.audio_format=S16LE data.audio_rate_hz=... data.audio_channels=..."
            )
        warnings += [
            f"{scan.path}: nothing says how to read {scan.topics.streams[m.name]}, so that '{m.name}' "
            f"is missing at all its moments; "
            "say it with data.audio_format=S16LE"
            for scan in silent
        ]
        warnings += [
            f"{scan.path}: has no topic for '{m.name}', which is missing at all its moments" for scan in without
        ]
    return warnings
