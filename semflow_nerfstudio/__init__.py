"""Semantic Flow for nerfstudio: semantic fields of dynamic scenes from monocular videos."""

__version__ = "0.1.0"
