"""Calibration of a head and of a bundle."""
