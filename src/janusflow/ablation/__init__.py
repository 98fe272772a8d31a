"""Ablations: the same training with one thing changed, over seeds, as a table with intervals (`janusflow ablate`)."""
