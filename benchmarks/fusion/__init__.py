"""The fusion benchmark: one set of frozen features, one budget, many heads. See docs/research/benchmarks.md."""
