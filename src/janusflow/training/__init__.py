"""Training: the run (`trainer`, `loop`, `step`), the losses (`objective`, `losses/`), small parts (`parts/`)."""
