"""Run a benchmark: request, items, outputs, verdicts, several processes."""
