"""One file per weight layout."""
