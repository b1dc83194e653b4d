"""Files for other programs out of a trained run."""
