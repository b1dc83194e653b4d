"""Camera poses of a clip: from COLMAP, from files, or of a camera that stands still."""
