"""The fusion node."""
