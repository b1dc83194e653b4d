"""Point tracks: points followed through the clip along the flow field (`tracker.track_points` is the way in)."""
