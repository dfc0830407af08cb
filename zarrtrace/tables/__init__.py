"""Rows of typed columns beside the draws, and the segments that are kept in them."""
