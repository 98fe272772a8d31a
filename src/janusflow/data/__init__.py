"""Training data: samples and the templates that turn them into token sequences."""
