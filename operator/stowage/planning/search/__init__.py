"""The search: every way to run a model on what is there, judged by one measure, lossless before lossy."""
