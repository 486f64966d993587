"""`stowage plan`: the question, what-ifs and comparisons, and how plans are shown."""
