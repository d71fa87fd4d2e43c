"""The folder of a run: checkpoints and features to resume from, and the reports."""

from __future__ import annotations

import csv
import io
import json
import platform
from importlib import metadata
from pathlib import Path

import yaml

from aecf_ros.core.files import write_text
from aecf_ros.training.config import TrainConfig
from aecf_ros.training.evaluation.evaluate import Evaluation, rounded
from aecf_ros.training.head.fit_loop import History

PACKAGES = (
    "aecf_ros",
    "numpy",
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "safetensors",
    "opencv-python",
    "rosbags",
    "optuna",
)
"""Packages whose versions are in ``environment.txt``."""


def folder_of(out: Path, run: Path | str | None) -> Path:
    """The folder of a run that writes the bundle ``out``: ``run``, or the default."""
    return Path(run) if run is not None else Path("out") / "train" / out.name


class RunFolder:
    """The files of a run: ``checkpoints/``, ``features/``, ``config.yaml``, ``environment.txt``, ``metrics.csv``
    (training losses), ``metrics.json``, ``curves.png`` and ``reliability.png``."""

    def __init__(self, path: Path, writes: bool = True) -> None:
        """``writes`` is false for the processes that leave writing to the first."""
        self.path, self._writes = path, writes
        self.checkpoints, self.features = path / "checkpoints", path / "features"
        self.histories: dict[str, History] = {}

    def begin(self, config: TrainConfig) -> None:
        """Create the folder; write the configuration and the environment."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.write("config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        self.write("environment.txt", environment())

    def log(self, stage: str, history: History) -> None:
        """Keep the losses of a stage, and write all so far to ``metrics.csv``."""
        self.histories[stage] = history
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("stage", "epoch", "training_loss", "held_out_nll"))
        for name, history in self.histories.items():
            for epoch, loss in enumerate(history.losses):
                held_out = f"{history.held_out[epoch]:.6f}" if epoch < len(history.held_out) else ""
                rows.writerow((name, epoch + 1, f"{loss:.6f}", held_out))
        self.write("metrics.csv", text.getvalue())

    def report(self, evaluation: Evaluation) -> None:
        """Write ``metrics.json`` and the pictures."""
        from aecf_ros.training.evaluation.curves import (  # matplotlib takes a second to import
            save_curves,
            save_reliability,
        )

        metrics: dict[str, object] = {
            "test": rounded(evaluation.metrics),
            "test_corrupted": rounded(evaluation.corrupted),
        }
        if evaluation.by_label:
            metrics["test_by_label"] = evaluation.by_label
        self.write("metrics.json", json.dumps(metrics, indent=1))
        save_curves(self.histories, self.path / "curves.png")
        save_reliability(evaluation.reliability, self.path / "reliability.png")

    def write(self, name: str, text: str) -> None:
        """Write one of its files in one step."""
        if not self._writes:
            return
        write_text(self.path / name, text)


def environment() -> str:
    """Python, platform and the versions of :data:`PACKAGES`, a line each."""
    lines = [f"python {platform.python_version()}", f"platform {platform.system()} {platform.machine()}"]
    for name in PACKAGES:
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{name} not installed")
    return "\n".join(lines) + "\n"


def version() -> str:
    """The version of aecf_ros."""
    try:
        return metadata.version("aecf_ros")
    except metadata.PackageNotFoundError:
        return "0.1.0"  # run from a checkout without installing
