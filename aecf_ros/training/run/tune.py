"""The search over the few settings of a head that matter, on folds of the calibration part; the test part is not looked at."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
import yaml
from rich.progress import Progress

from aecf_ros.training.calibration.calibrate import subset_nll
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.features.onnx_encoder import Encoder
from aecf_ros.training.head.feature_tables import Part, Table
from aecf_ros.training.head.fit_loop import fingerprint
from aecf_ros.training.head.pairing import same_moments
from aecf_ros.training.run.config import TrainConfig
from aecf_ros.training.run.preflight import check
from aecf_ros.training.run.run_folder import RunFolder, folder_of
from aecf_ros.training.run.stages import fit_head, prepare, progress_bars, settle_head

AS_GIVEN = "as given"
WIDTHS = (AS_GIVEN, 64, 128, 256, 512)
"""Units of each of an expert's two hidden layers."""
FOLDS, MOST_COPIES = 2, 2
_DRAW = 17


def tune(
    corpus: Corpus,
    out: Path | str,
    config: TrainConfig,
    trials: int,
    *,
    run: Path | str | None = None,
    show_progress: bool = True,
) -> tuple[TrainConfig, float, float]:
    """Search expert width, dropout, learning rate, weight decay and corrupted copies; the first trial is ``config`` itself.

    A head is trained on the part ``fusion`` with each trial's settings; one half of the calibration part's clusters decides
    what that part decides of it, and the other half gives its NLL over all subsets, in turn. The trials are in ``tune.db``
    (sqlite) of the run folder, so that a search which was stopped goes on; the best configuration is in ``tuned.yaml``.

    Args:
        trials: in all, those of an earlier search with the same data and configuration included.

    Returns:
        The best configuration, its NLL and that of ``config``, in nats.

    Raises:
        ConfigError, DatasetError, EncoderError: as :func:`aecf_ros.training.run.train.train`; a class of the calibration part has
            too few clusters for two halves.
    """
    folder = RunFolder(folder_of(Path(out), run))
    torch.set_num_threads(config.threads)
    frozen = check(corpus, config)
    folder.begin(config)
    most = max(MOST_COPIES, config.head.field_copies)
    with progress_bars(show_progress) as progress:
        encoders, parts = prepare(corpus, frozen, with_settings(config, {"field_copies": most}), folder, progress)
        halves = halves_of(parts["calibration"], np.random.default_rng([config.seed, _DRAW]))
        study = _study(folder, corpus, config)
        task = progress.add_task("trials", total=trials, note="")

        def told(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            progress.update(
                task, completed=len(_done(study)), note=f"NLL {trial.value:.4f}, least {study.best_value:.4f}"
            )

        progress.update(task, completed=len(_done(study)))
        quiet = progress_bars(False)
        study.optimize(
            lambda trial: _nll(
                with_settings(config, _suggest(trial, most)), corpus, parts["fusion"], encoders, halves, folder, quiet
            ),
            n_trials=max(trials - len(_done(study)), 0),
            callbacks=[told],
            catch=(FloatingPointError,),  # a learning rate too high fails its own trial
        )
    best = with_settings(config, study.best_params)
    folder.write("tuned.yaml", yaml.safe_dump(best.model_dump(mode="json"), sort_keys=False))
    return best, study.best_value, study.trials[0].value or float("nan")


def _study(folder: RunFolder, corpus: Corpus, config: TrainConfig) -> optuna.Study:
    """The search of this data and configuration, begun or taken up."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    key = fingerprint(
        config.model_dump(mode="json"),
        [unit.digest for part in ("fusion", "calibration") for unit in corpus.parts[part]],
    )
    storage = f"sqlite:///{folder.path / 'tune.db'}"
    known = optuna.get_all_study_names(storage)
    study = optuna.create_study(storage=storage, study_name=key, load_if_exists=True, direction="minimize")
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))
    if key not in known:
        given = config.head.optimizer
        study.enqueue_trial(
            {
                "width": AS_GIVEN,
                "dropout": config.head.options.dropout,
                "learning_rate": given.learning_rate,
                "weight_decay": given.weight_decay,
                "field_copies": config.head.field_copies,
            }
        )
    return study


def _done(study: optuna.Study) -> list:
    return [trial for trial in study.trials if trial.state.is_finished()]


def _suggest(trial: optuna.Trial, most_copies: int) -> dict[str, Any]:
    return {
        "width": trial.suggest_categorical("width", WIDTHS),
        "dropout": trial.suggest_float("dropout", 0.0, 0.6),
        "learning_rate": trial.suggest_float("learning_rate", 2e-4, 2e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-4, 0.3, log=True),
        "field_copies": trial.suggest_int("field_copies", 0, most_copies),
    }


def with_settings(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """A configuration with some settings of its head replaced, as a trial names them."""
    fields = config.model_dump()
    head = fields["head"]
    for name, value in settings.items():
        if name == "width":
            if value != AS_GIVEN:
                head["options"] = head["options"] | {"expert_hidden": [value, value]}
        elif name == "dropout":
            head["options"] = head["options"] | {"dropout": value}
        elif name == "field_copies":
            head["field_copies"] = value
        else:
            head["optimizer"][name] = value
    return TrainConfig.model_validate(fields)


def _nll(
    config: TrainConfig,
    corpus: Corpus,
    fusion: Part,
    encoders: Mapping[str, Encoder],
    halves: tuple[Part, Part],
    folder: RunFolder,
    quiet: Progress,
) -> float:
    head = fit_head(corpus, fusion, encoders, config, folder, quiet)
    losses = []
    for fitted, measured in (halves, halves[::-1]):
        settled, _ = settle_head(head, fitted, config)
        pairs = measured.calibration_pairs(config.pairs, config.seed)
        losses.append(subset_nll(settled.eval(), measured.embeddings, pairs, measured.sets))
    return float(np.mean(losses))


def halves_of(part: Part, generator: np.random.Generator) -> tuple[Part, Part]:
    """A part in two that share no cluster; each class has clusters in both, where a moment has one label.

    Raises:
        DatasetError: a class has one cluster alone.
    """
    if part.moments is None:
        chosen = [_half(table.labels, table.clusters, generator) for table in part.clean]
    else:  # what is of one moment stays together
        together = np.unique(np.concatenate([table.clusters for table in part.clean]))
        labels = {
            c: v if part.sets is None else 0
            for table in part.clean
            for c, v in zip(table.clusters.tolist(), table.labels.tolist(), strict=True)
        }
        chosen = [_half(np.array([labels[c] for c in together.tolist()]), together, generator)] * len(part.clean)
    return tuple(_side(part, chosen, side) for side in (True, False))


def _half(labels: np.ndarray, clusters: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    half = []
    for value in np.unique(labels):
        of = np.unique(clusters[labels == value])
        if len(of) < FOLDS:
            raise DatasetError(
                "--tune: a class has one labelled span (or cluster) in the calibration part, and the search needs two; "
                "record it more often, or train without --tune"
            )
        half.append(generator.permutation(of)[: len(of) // FOLDS])
    return np.concatenate(half)


def _side(part: Part, chosen: list[np.ndarray], side: bool) -> Part:
    keep = [np.isin(table.clusters, of) == side for table, of in zip(part.clean, chosen, strict=True)]
    clean = [
        Table(*(column[rows] for column in vars(table).values())) for table, rows in zip(part.clean, keep, strict=True)
    ]
    moments = part.moments
    if moments is not None:
        here = np.zeros(len(moments), bool)
        for m, rows in enumerate(keep):
            has = moments.present[:, m]
            here[has] |= rows[moments.rows[has, m]]
        moments = same_moments(moments.present[here], moments.labels[here])
    return replace(part, clean=clean, copies=[[] for _ in clean], moments=moments)
