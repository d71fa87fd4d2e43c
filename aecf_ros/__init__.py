"""Sensor fusion that keeps predicting, with a calibrated confidence, when a camera or a microphone stops."""

__version__ = "0.1.0"
