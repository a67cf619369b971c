"""Parts of the leakage benchmarks."""
