"""Encoders and their embeddings."""
