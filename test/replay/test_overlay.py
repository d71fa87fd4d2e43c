"""The debug picture: what fed the prediction is bright, what did not is not taken for live."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from aecf_ros.core.types import ModalityReport, Prediction, StreamState
from aecf_ros.replay.report.overlay import DIMMED, _last_line, draw_overlay


def prediction(camera_used: bool) -> Prediction:
    state = StreamState.OK if camera_used else StreamState.DROPPED
    reports = (
        ModalityReport("camera", state, camera_used, 0.5, 1, "two", 0.9),
        ModalityReport("audio", StreamState.OK, True, 0.5, 1, "two", 0.9),
    )
    return Prediction(
        1, "m", "two", 0, 0.9, np.array([0.9, 0.1], np.float32), ("two",), 0.9, 1.0, 0.6, False, "", reports
    )


def test_a_frame_that_fed_the_prediction_is_shown_as_it_is() -> None:
    image = np.full((240, 320, 3), 200, np.uint8)
    drawn = draw_overlay(image, prediction(camera_used=True), "camera")
    assert np.array_equal(drawn[:240], image) and drawn.shape[0] > 240


def test_the_last_frame_of_a_lost_camera_is_dimmed() -> None:
    drawn = draw_overlay(np.full((240, 320, 3), 200, np.uint8), prediction(camera_used=False), "camera")
    assert np.median(drawn[:240]) == round(200 * DIMMED)


def test_a_narrow_picture_is_enlarged() -> None:
    assert draw_overlay(np.zeros((48, 64, 3), np.uint8), prediction(camera_used=True), "camera").shape[1] == 320


def test_the_last_line_names_the_set_and_knows_no_agreement_of_one() -> None:
    assert _last_line(prediction(camera_used=True)) == "agreement 1.00   set {two}"
    assert _last_line(prediction(camera_used=False)) == "agreement -   set {two}"
    assert _last_line(
        replace(prediction(camera_used=True), prediction_set=("zero", "one", "two", "three", "four"))
    ).endswith("set of 5")
