"""Runs a network: the steps of generation and of text decoding, for pipelines and evaluation."""
