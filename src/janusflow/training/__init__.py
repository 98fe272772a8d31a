"""Training: the loop (`fit`), the losses (`objective`) and the shipped model's recipe (`tiny`)."""
