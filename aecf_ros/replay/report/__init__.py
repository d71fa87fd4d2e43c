"""Reports of a replay: HTML, figures, tables."""
