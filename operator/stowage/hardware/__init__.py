"""What the cluster's machines are and have: GPUs, nodes, free resources.

Everything is read from raw Kubernetes objects that are handed in; nothing here talks to a cluster, reads a
clock or decides what should run where.
"""
