"""Draw a prediction over a camera frame: label, confidence bar, gate weights, stream states, agreement."""

from __future__ import annotations

import cv2
import numpy as np

from aecf_ros.core.types import Prediction, StreamState

MIN_WIDTH = 320
DIMMED = 0.35
LONGEST_SET = 18
"""Characters of a prediction set that fit beside the agreement."""
_GOOD, _WARN, _BAD, _WHITE, _GRAY, _DIM = (
    (80, 200, 120),
    (240, 190, 60),
    (235, 80, 70),
    (245, 245, 245),
    (180, 185, 190),
    (110, 115, 120),
)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_overlay(image: np.ndarray, prediction: Prediction, camera: str) -> np.ndarray:
    """The frame with a panel below it; a frame that did not feed the prediction is dimmed and crossed out.

    Args:
        camera: the modality that the frame is of.
        image: uint8 ``(H, W, 3)`` RGB; narrower ones are enlarged to ``MIN_WIDTH``.

    Returns:
        uint8 ``(H', W', 3)`` RGB, a new array.
    """
    scale = max(1.0, MIN_WIDTH / image.shape[1])
    frame = cv2.resize(image, None, fx=scale, fy=scale) if scale > 1 else image
    height, width = frame.shape[:2]
    if not any(report.used for report in prediction.modalities if report.name == camera):
        frame = cv2.convertScaleAbs(frame, alpha=DIMMED)
        cv2.line(frame, (0, 0), (width - 1, height - 1), _BAD, 2, cv2.LINE_AA)
        cv2.line(frame, (0, height - 1), (width - 1, 0), _BAD, 2, cv2.LINE_AA)
    row = 22
    panel = np.full((row * (2 + len(prediction.modalities)) + 8, width, 3), 24, np.uint8)
    color = _WARN if prediction.abstain else _GOOD
    _text(panel, prediction.abstain_reason if prediction.abstain else prediction.label, 8, row - 4, color, 0.6)
    _bar(panel, width // 2, 8, width // 2 - 60, prediction.confidence, color)
    _text(panel, f"{prediction.confidence:.2f}", width - 52, row - 4, _WHITE)
    for i, report in enumerate(prediction.modalities):
        y = row * (i + 1)
        state_color = (
            _GOOD
            if report.state is StreamState.OK
            else _WARN
            if report.state.feeds_fusion or report.state is StreamState.WAITING
            else _BAD
        )
        _text(panel, f"{report.name[:10]} {report.state.name}", 8, y + row - 4, state_color)
        _bar(panel, width // 2, y + 8, width // 2 - 60, report.gate_weight, _WHITE)
        _text(panel, f"{report.gate_weight:.2f}", width - 52, y + row - 4, _WHITE)
    _text(panel, _last_line(prediction), 8, panel.shape[0] - 10, _GRAY)
    return np.vstack([frame, panel])


def _last_line(prediction: Prediction) -> str:
    members = ", ".join(prediction.prediction_set)
    agreement = f"{prediction.agreement:.2f}" if sum(report.used for report in prediction.modalities) > 1 else "-"
    return f"agreement {agreement}   set " + (
        f"{{{members}}}" if len(members) <= LONGEST_SET else f"of {len(prediction.prediction_set)}"
    )


def _text(panel: np.ndarray, text: str, x: int, y: int, color: tuple[int, int, int], size: float = 0.42) -> None:
    cv2.putText(panel, text, (x, y), _FONT, size, color, 1, cv2.LINE_AA)


def _bar(panel: np.ndarray, x: int, y: int, width: int, value: float, color: tuple[int, int, int]) -> None:
    cv2.rectangle(panel, (x, y), (x + width, y + 8), _DIM, 1)
    cv2.rectangle(panel, (x, y), (x + int(width * min(1.0, max(0.0, value))), y + 8), color, -1)
