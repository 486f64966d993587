"""Talking to the Kubernetes API: client, cache, queue, writes, election, events.

Nothing here decides what should be in the cluster; that is `stowage.engine`. The official client is imported by
`client.py`, `connection.py` and `leader.py` alone.
"""
