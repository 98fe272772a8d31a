"""The public faces: `JanusFlow` and `Janus`."""
