"""`stowage memory`: the question, the ledger that answers it, and how that is shown."""
