"""Benchmarks of serving with a plan against stock vLLM, on the machine at hand; not part of the wheel."""
