"""Benchmarks: each takes a pipeline and gives back counts of right answers."""
