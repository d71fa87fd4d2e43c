"""Nodes and programs around the fusion node."""
