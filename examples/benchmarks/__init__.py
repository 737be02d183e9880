"""The benchmark: ``python -m examples.benchmarks --help``; see docs/benchmarks.md."""
