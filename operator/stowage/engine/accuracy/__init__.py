"""The accuracy check of a lossy plan, from the Job that measures to the verdict that promotes."""
