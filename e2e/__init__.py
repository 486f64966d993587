"""Test and demo tools that run real parts: a control plane, nodes, a model hub.

Nothing here is shipped with the operator, and the operator never imports it.
"""
