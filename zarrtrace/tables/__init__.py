"""Tables of typed columns beside the draws, and the segments that are stored in them."""
