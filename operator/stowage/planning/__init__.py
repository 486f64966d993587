"""From a model, a wish and a snapshot of the cluster to one explained plan.

Pure: the command line, the operator and what-if questions call the same functions with different snapshots.
Nothing here renders objects, reads a clock or talks to anything.
"""
