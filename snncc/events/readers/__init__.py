"""One module per family of files: each function takes a path and returns `Columns`, or raises a `DataError`."""
