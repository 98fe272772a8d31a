"""A rendered world of coloured shapes with exact answers, on which the shipped model is trained and evaluated."""
