"""Models that judge answers and pictures: on this machine, or behind an endpoint."""
