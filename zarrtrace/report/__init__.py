"""One page for a run: what it has drawn, how good that is, and how it came about."""
