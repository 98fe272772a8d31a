"""A rendered world of coloured shapes with exact answers: what the shipped model is trained on and judged by."""
