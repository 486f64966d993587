"""`make demo`: the whole path from `kubectl apply` to served tokens, shown on this machine."""
