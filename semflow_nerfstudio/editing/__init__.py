"""Instances of a trained scene, and edits of them at render time."""
