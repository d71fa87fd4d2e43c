"""Predictions of a replay against the true labels."""
