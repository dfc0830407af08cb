"""CmdStan's CSV files, finished or still growing: what their lines say, and how they are recorded.

`comments` and `columns` understand the lines, `csv_file` reads those that were added, `run` knows
which files are chains of one run, and `follow` records them.
"""
