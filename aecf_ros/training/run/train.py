"""One run: encoders, features, head, calibration, bundle."""

from __future__ import annotations

from pathlib import Path

import torch

from aecf_ros.core.bundle import Manifest, load_bundle
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.evaluation.evaluate import answers_of, evaluate
from aecf_ros.training.head.distributed import ALONE, Ranks
from aecf_ros.training.run.assemble import Trained, assemble
from aecf_ros.training.run.config import TrainConfig
from aecf_ros.training.run.preflight import check
from aecf_ros.training.run.run_folder import RunFolder, folder_of
from aecf_ros.training.run.stages import calibrated, fit_head, prepare, progress_bars, settle_head


def train(
    corpus: Corpus,
    out: Path | str,
    config: TrainConfig,
    *,
    run: Path | str | None = None,
    show_progress: bool = True,
    ranks: Ranks = ALONE,
    ray: str | None = None,
) -> Manifest:
    """Train on a corpus and write a verified bundle.

    A run that was killed is taken up at its last finished epoch when it is started again with the same data,
    configuration and run folder; stages that a changed configuration does not touch are not repeated.

    Args:
        corpus: as :func:`aecf_ros.commands.data.open_corpus` gives it.
        out: bundle directory; its name is the model's. Files of others in it stay.
        config: the configuration.
        run: folder of the run (:class:`aecf_ros.training.run.run_folder.RunFolder`); ``out/train/<name>`` here if left out.
        show_progress: draw progress bars on standard error.
        ranks: the processes that share the work; all call this with the same arguments and see the same folders, the first
            writes the bundle.
        ray: address of a Ray cluster over which features are computed, empty to start one here; ``None`` for none.

    Raises:
        ClusterError: Ray is asked for and cannot be had.
        ConfigError, DatasetError, EncoderError, CalibrationError, ExportError, FloatingPointError: one line each, saying
            what was found and what to do. What reading recordings raises comes through.
    """
    out = Path(out)
    folder = RunFolder(folder_of(out, run), writes=ranks.first)
    torch.set_num_threads(config.threads)
    frozen = check(corpus, config)
    folder.begin(config)
    with progress_bars(show_progress and ranks.first) as progress:
        encoders, parts = prepare(corpus, frozen, config, folder, progress, ranks, ray)
        cross_fitted = fit_head(corpus, parts["fusion"], encoders, config, folder, progress, ranks)
        if not ranks.first:
            ranks.wait()
            return load_bundle(out).manifest
        finishing = progress.add_task("calibrate, export, verify", total=4, note="")
        head, settled = settle_head(cross_fitted, parts["calibration"], config)
        calibration, exported = calibrated(head, corpus, parts, config)
        progress.advance(finishing)
        evaluation = evaluate(parts["test"], corpus.names, answers_of(exported), config)
        progress.advance(finishing)
        folder.report(evaluation)
        progress.advance(finishing)
        manifest = assemble(out, corpus, parts, Trained(encoders, exported, calibration, settled, evaluation), config)
        progress.advance(finishing)
    ranks.wait()
    return manifest
