"""The small program that turns one process into a container's first process, or joins it to one.

It runs as a script of its own (`__main__`), on the standard library only, so that the node's process never
enters a namespace itself and a crash of the node kills every container with it. Nothing here talks to
Kubernetes.
"""
