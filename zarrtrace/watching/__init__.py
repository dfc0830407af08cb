"""Look at a run while it runs: how far each chain is, and whether the chains agree."""
