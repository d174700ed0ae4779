"""One script per claim of speed. `python -m benchmarks` runs them; docs/benchmarks.md keeps what they printed."""
