"""Read datasets: store → rows → cut → dataset."""
