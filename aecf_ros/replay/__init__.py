"""Recordings: read them, make their sensors fail, drive the node's own pipeline, score and report."""
