"""Metrics of predictions: classification, several labels, bootstrap intervals, comparison of two models."""
