"""Training: from a corpus to a bundle, stage by stage."""

from __future__ import annotations

from pathlib import Path

from aecf_ros.core.bundle import Manifest, load_bundle
from aecf_ros.training.config import TrainConfig
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.evaluation.evaluate import answers_of, evaluate
from aecf_ros.training.run.assemble import Trained, assemble
from aecf_ros.training.run.run import ALONE, Workers, start_run
from aecf_ros.training.run.run_folder import RunFolder, folder_of
from aecf_ros.training.run.stages import calibrate_head, extract_features, fit_head, train_encoders


def train(
    corpus: Corpus,
    out: Path | str,
    config: TrainConfig,
    *,
    run: Path | str | None = None,
    show_progress: bool = True,
    workers: Workers = ALONE,
) -> Manifest:
    """Train on a corpus and write a verified bundle.

    A killed run resumes at its last finished epoch when it is started again with the same data, configuration and run
    folder; stages that a changed configuration does not affect are not repeated.

    Args:
        corpus: as :func:`aecf_ros.commands.shared.corpus.open_corpus` gives it.
        out: bundle directory; its name is the model's. Other files in it stay.
        run: folder of the run (:class:`aecf_ros.training.run.run_folder.RunFolder`); ``out/train/<name>`` by default.
        show_progress: draw progress bars on standard error.
        workers: the first process writes the bundle.

    Raises:
        ClusterError: the Ray cluster cannot be used.
        ConfigError, DatasetError, EncoderError, CalibrationError, ExportError, FloatingPointError: one line each.
            Errors from reading recordings are passed on.
    """
    out = Path(out)
    folder = RunFolder(folder_of(out, run), writes=workers.processes.is_first)
    this = start_run(corpus, config, folder, workers, show_progress)
    with this.progress as progress:
        encoders = train_encoders(this)
        parts = extract_features(this, encoders)
        fitted = fit_head(this, parts["fusion"])
        if not this.processes.is_first:
            this.processes.wait()
            return load_bundle(out).manifest
        finishing = progress.add_task("calibrate, export, verify", total=4, note="")
        head = calibrate_head(this, fitted, parts)
        progress.advance(finishing)
        evaluation = evaluate(parts["test"], corpus.names, answers_of(head.module), config)
        progress.advance(finishing)
        folder.report(evaluation)
        progress.advance(finishing)
        manifest = assemble(this, out, parts, Trained(encoders, head, evaluation))
        progress.advance(finishing)
    this.processes.wait()
    return manifest
