"""Benchmarks: each takes a pipeline and scores its outputs."""
