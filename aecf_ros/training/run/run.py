"""A training run as one record: what every stage takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aecf_ros.training.config import TrainConfig
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.features.onnx_encoder import FrozenEncoder
from aecf_ros.training.head.distributed import SINGLE_PROCESS, ProcessGroup
from aecf_ros.training.head.fit_loop import FitContext
from aecf_ros.training.run.preflight import check
from aecf_ros.training.run.run_folder import RunFolder

_HEAD_SEED = 11


@dataclass(frozen=True)
class Workers:
    """Who shares the work of a run.

    Attributes:
        processes: that torchrun started; all train with the same arguments and see the same folders.
        ray: address of a Ray cluster that computes features; empty to start one on this machine, ``None`` for none.
    """

    processes: ProcessGroup = SINGLE_PROCESS
    ray: str | None = None


ALONE = Workers()
"""This process and no cluster."""


@dataclass(frozen=True)
class Run:
    """One training run. A stage takes the run and the artifacts of earlier stages, and gives one artifact.

    Attributes:
        frozen: encoders that are not trained here, by modality.
        progress: bars of the stages; see :meth:`fit_context`.
    """

    corpus: Corpus
    config: TrainConfig
    folder: RunFolder
    frozen: Mapping[str, FrozenEncoder]
    progress: Progress
    workers: Workers = ALONE

    @property
    def processes(self) -> ProcessGroup:
        """The processes of this run."""
        return self.workers.processes

    @property
    def head_seed(self) -> int:
        """Seed of the head."""
        return self.config.seed + _HEAD_SEED

    def encoder_seed(self, index: int) -> int:
        """Seed of the encoder of the modality ``index``."""
        return self.config.seed * 31 + index

    def fit_context(self, stage: str, steps: int, seed: int, processes: ProcessGroup = SINGLE_PROCESS) -> FitContext:
        """The context of a fit, with a new progress bar of ``steps``."""
        task = self.progress.add_task(stage, total=steps, note="")

        def show(done: float, note: str) -> None:
            self.progress.update(task, completed=done, note=note)

        return FitContext(self.folder.checkpoints, seed, show, self.config.mixed_precision, processes)


def start_run(
    corpus: Corpus, config: TrainConfig, folder: RunFolder, workers: Workers = ALONE, show_progress: bool = True
) -> Run:
    """Check a configuration against the data, and begin its run folder.

    Raises:
        ConfigError, DatasetError, EncoderError: as :func:`aecf_ros.training.run.preflight.check`.
    """
    torch.set_num_threads(config.threads)
    frozen = check(corpus, config)
    folder.begin(config)
    return Run(corpus, config, folder, frozen, progress_bars(show_progress and workers.processes.is_first), workers)


def progress_bars(show: bool) -> Progress:
    """Progress bars on standard error, each with a note."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), disable=not show)
