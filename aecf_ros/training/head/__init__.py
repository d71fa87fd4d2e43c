"""Training of the fusion head."""
