"""Calibration across modality subsets."""
