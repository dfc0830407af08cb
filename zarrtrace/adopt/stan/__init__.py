"""CmdStan's CSV files, finished or still growing: what their lines say.

`comments` and `columns` understand the lines, `run` knows which files are chains of one run, and
`csv_file` is one of them.
"""
