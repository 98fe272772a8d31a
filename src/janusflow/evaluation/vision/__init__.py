"""Models that look at pictures: CLIP, a detector, Frechet distance."""
