"""From the files of all jobs to one record: the schema of out/bench/fusion.json."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.fusion.evaluate import CALIBRATIONS
from benchmarks.fusion.intervals import mean_interval
from benchmarks.fusion.rows import ABLATIONS_OF_OURS, BASELINES, OURS, VARIANTS_OF_OURS


def collect(paths: list[Path]) -> dict:
    """Means and standard deviations over seeds, the strongest baselines, and the paired bootstrap against every
    baseline.
    """
    raw: dict = defaultdict(lambda: defaultdict(list))
    contradiction: dict = defaultdict(lambda: defaultdict(list))
    for path in paths:
        record = json.loads(path.read_text())
        for variant, by_row in record["variants"].items():
            for row, figures in by_row.items():
                raw[variant][row].append(figures)
        for variant, by_row in record["contradiction"].items():
            for row, figures in by_row.items():
                contradiction[row][variant].append(figures)
    variants = {v: {row: merge_seeds(seeds) for row, seeds in by_row.items()} for v, by_row in raw.items()}
    strongest = {v: strongest_baseline(by_row, variants[home_of(v)]) for v, by_row in variants.items()}
    if contradiction:
        variants["contradiction"] = {
            row: {"raw": merge_seeds(dict_of)} for row, dict_of in _transpose(contradiction).items()
        }
    return {
        "variants": variants,
        "strongest_baseline": strongest,
        "ours": OURS,
        "seeds": {v: {row: len(seeds) for row, seeds in by_row.items()} for v, by_row in raw.items()},
        "bootstrap": bootstrap(paths, variants),
    }


def best_calibration(row: dict) -> str:
    """The simplest calibration within 0.002 nats of the best on the calibration part: never chosen on test.

    0.002 is about one standard error there, with its 250 recordings; a temperature has to earn its place.
    """
    loss = {name: row[name]["calibration_nll"][0] for name in CALIBRATIONS}
    return next(name for name in CALIBRATIONS if loss[name] <= min(loss.values()) + 0.002)


def home_of(variant: str) -> str:
    """Where a variant's heads were trained and calibrated: those of unseen kinds on `field`."""
    return "field" if variant in ("field-unseen", "field-development") else variant


def calibration_of(by_row: dict, row: str) -> str:
    """Which calibration a row is reported under. Ours carries its own, and a temperature after the lift would undo it:
    always raw.
    """
    return "raw" if row in (*VARIANTS_OF_OURS, *ABLATIONS_OF_OURS) else best_calibration(by_row[row])


def strongest_baseline(by_row: dict, home: dict) -> str:
    """The baseline with the lowest mean of NLL with both and on drop50, each under its own best calibration."""

    def score(row: str) -> float:
        record = by_row[row][calibration_of(home, row)]
        return record["both"]["nll"][0] + record["drop50"]["nll"][0]

    return min((row for row in by_row if row in BASELINES), key=score, default="")


def bootstrap(paths: list[Path], variants: dict) -> dict:
    """NLL of ours minus that of each baseline, with both and on drop50: {variant: {baseline: {subset: [mean, low,
    high]}}}.

    Paired by sample, averaged over seeds, resampled by recording (samples that share one are not independent); 95 %
    interval. Each row under its own best calibration. speaker-out is left out: its seeds hold different samples.
    """
    losses: dict = defaultdict(lambda: defaultdict(list))
    recordings: dict = {}
    for path in paths:
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as archive:
            for key in archive.files:
                name, row = key.split("|", 1)
                if name == "recording":
                    recordings[row] = archive[key]
                elif name != "speaker-out" and row in (*BASELINES, OURS):
                    chosen = list(CALIBRATIONS).index(calibration_of(variants[home_of(name)], row))
                    losses[name][row].append(archive[key][chosen])
    out: dict = {}
    for variant, by_row in losses.items():
        mean = {row: np.mean(seeds, axis=0) for row, seeds in by_row.items()}
        if OURS not in mean:
            continue
        clusters = np.unique(recordings[variant], return_inverse=True)[1]
        out[variant] = {
            row: {s: _interval(mean[OURS][i] - mean[row][i], clusters) for i, s in enumerate(("both", "drop50"))}
            for row in mean
            if row != OURS
        }
    return out


def _interval(difference: np.ndarray, clusters: np.ndarray) -> list[float]:
    found = mean_interval(difference, clusters)
    return [found.estimate, found.low, found.high]


def merge_seeds(seeds: list[dict]) -> dict:
    """One record of several: numbers become [mean, sd], records are merged by key, floors stay plain means."""
    merged: dict = {}
    for key, value in seeds[0].items():
        column = [seed[key] for seed in seeds]
        if isinstance(value, dict):
            merged[key] = merge_seeds(column)
        elif key == "ece_floor95":
            merged[key] = float(np.mean(column))
        elif isinstance(value, list):
            merged[key] = [float(x) for x in np.mean(column, axis=0)]
        else:
            merged[key] = [float(np.mean(column)), float(np.std(column, ddof=1)) if len(column) > 1 else 0.0]
    return merged


def _transpose(contradiction: dict) -> dict[str, list[dict]]:
    """{row: {variant: [figures of each seed]}} -> {row: [{variant: figures} of each seed]}."""
    out = {}
    for row, by_variant in contradiction.items():
        count = min(len(seeds) for seeds in by_variant.values())
        out[row] = [{v: seeds[i] for v, seeds in by_variant.items()} for i in range(count)]
    return out
