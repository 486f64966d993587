"""Tools of this repository that are no part of what is shipped."""
