"""Why something was not chosen, and what would have to change for it to be."""
