"""Faults injected into a recording's messages."""
