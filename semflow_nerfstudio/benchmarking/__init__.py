"""Measurements: what is run, how it is recorded, and how it is shown."""
