"""Results of other libraries become traces."""
