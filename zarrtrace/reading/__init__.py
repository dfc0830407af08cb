"""A dataset comes out: store → rows → cut → dataset."""
