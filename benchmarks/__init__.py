"""Benchmarks: `python -m benchmarks NAME`. Never imported by the product."""
