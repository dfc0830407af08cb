"""Goals: when a run is good enough to stop, and how that is seen, confirmed and recorded."""
