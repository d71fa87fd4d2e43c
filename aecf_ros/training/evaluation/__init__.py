"""Metrics, figures and model cards of a trained bundle."""
