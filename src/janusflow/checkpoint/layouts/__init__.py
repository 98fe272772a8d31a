"""One file per weight layout; `janusflow.families.find_layout` chooses among them."""
