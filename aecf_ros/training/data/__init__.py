"""Labeled data in every form."""
