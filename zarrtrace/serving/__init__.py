"""Pages in a browser that show runs while they are recorded."""
