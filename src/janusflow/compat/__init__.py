"""Interfaces of other projects, so that programs written for them run on this package."""
