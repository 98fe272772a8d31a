"""A rendered world of colored shapes with exact answers, on which the shipped model is trained and evaluated."""
