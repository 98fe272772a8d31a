"""The public entry points: `JanusFlow` and `Janus`."""
