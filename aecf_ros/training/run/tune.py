"""Search over the settings of a head that matter, on halves of the calibration part; the test part is not used."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml

from aecf_ros.training.calibration.calibrate import subset_nll
from aecf_ros.training.config import TrainConfig
from aecf_ros.training.data.corpus import Corpus
from aecf_ros.training.data.npy_dataset import DatasetError
from aecf_ros.training.head.feature_tables import FeatureTable, PartFeatures
from aecf_ros.training.head.fit_loop import fingerprint
from aecf_ros.training.head.pairing import pair_by_moment
from aecf_ros.training.run.run import Run, progress_bars, start_run
from aecf_ros.training.run.run_folder import RunFolder, folder_of
from aecf_ros.training.run.stages import extract_features, fit_head, settle_head, train_encoders

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
    """Search expert width, dropout, learning rate, weight decay and corrupted copies; ``config`` is the first trial.

    Each trial trains a head on the part ``fusion``, settles it on one half of the clusters of the calibration part and
    takes its NLL over all subsets on the other half, in turn. The trials are kept in ``tune.db`` (sqlite) of the run
    folder, so that a stopped search resumes; the best configuration is written to ``tuned.yaml``.

    Args:
        trials: in all, including those of an earlier search with the same data and configuration.

    Returns:
        The best configuration, its NLL and that of ``config``, in nats.

    Raises:
        ConfigError, DatasetError, EncoderError: as :func:`aecf_ros.training.run.train.train`, and where a class of the
            calibration part has too few clusters for two halves.
    """
    given = start_run(corpus, config, RunFolder(folder_of(Path(out), run)), show_progress=show_progress)
    most = max(MOST_COPIES, config.head.field_copies)
    with given.progress as progress:
        widest = replace(given, config=with_settings(config, {"field_copies": most}))
        parts = extract_features(widest, train_encoders(widest))
        halves = halves_of(parts["calibration"], np.random.default_rng([config.seed, _DRAW]))
        study = _study(given)
        task = progress.add_task("trials", total=trials, note="")

        def show(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            note = f"NLL {trial.value:.4f}, least {study.best_value:.4f}"
            progress.update(task, completed=len(_done(study)), note=note)

        def objective(trial: optuna.Trial) -> float:
            settings = with_settings(config, _suggest(trial, most))
            return _nll(replace(given, config=settings, progress=progress_bars(False)), parts["fusion"], halves)

        progress.update(task, completed=len(_done(study)))
        study.optimize(
            objective,
            n_trials=max(trials - len(_done(study)), 0),
            callbacks=[show],
            catch=(FloatingPointError,),  # a learning rate that is too high fails its own trial only
        )
    best = with_settings(config, study.best_params)
    given.folder.write("tuned.yaml", yaml.safe_dump(best.model_dump(mode="json"), sort_keys=False))
    return best, study.best_value, study.trials[0].value or float("nan")


def _study(run: Run) -> optuna.Study:
    """The search over this data and configuration, new or resumed."""
    config = run.config
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    key = fingerprint(
        config.model_dump(mode="json"),
        [unit.digest for part in ("fusion", "calibration") for unit in run.corpus.parts[part]],
    )
    storage = f"sqlite:///{run.folder.path / 'tune.db'}"
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


def _done(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
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


def _nll(run: Run, fusion: PartFeatures, halves: tuple[PartFeatures, PartFeatures]) -> float:
    """Train a head; the mean NLL on each half of the calibration part after settling it on the other half."""
    head = fit_head(run, fusion)
    nll = []
    for fitted, measured in (halves, halves[::-1]):
        settled, _ = settle_head(run, head, fitted)
        pairs = measured.calibration_pairs(run.config.pairs, run.config.seed)
        nll.append(subset_nll(settled.eval(), measured.embeddings, pairs, measured.sets))
    return float(np.mean(nll))


def halves_of(part: PartFeatures, generator: np.random.Generator) -> tuple[PartFeatures, PartFeatures]:
    """Two halves of a part that share no cluster; with one label a moment, each class has clusters in both.

    Raises:
        DatasetError: a class has only one cluster.
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
    return _side(part, chosen, True), _side(part, chosen, False)


def _half(labels: np.ndarray, clusters: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    half = []
    for value in np.unique(labels):
        members = np.unique(clusters[labels == value])
        if len(members) < FOLDS:
            raise DatasetError(
                "--tune: a class has one labeled span (or cluster) in the calibration part, and the search needs two; "
                "record it more often, or train without --tune"
            )
        half.append(generator.permutation(members)[: len(members) // FOLDS])
    return np.concatenate(half)


def _side(part: PartFeatures, chosen: list[np.ndarray], side: bool) -> PartFeatures:
    keep = [np.isin(table.clusters, members) == side for table, members in zip(part.clean, chosen, strict=True)]
    clean = [
        FeatureTable(*(column[rows] for column in vars(table).values()))
        for table, rows in zip(part.clean, keep, strict=True)
    ]
    moments = part.moments
    if moments is not None:
        here = np.zeros(len(moments), bool)
        for m, rows in enumerate(keep):
            has = moments.present[:, m]
            here[has] |= rows[moments.rows[has, m]]
        moments = pair_by_moment(moments.present[here], moments.labels[here])
    return replace(part, clean=clean, copies=[[] for _ in clean], moments=moments)
