"""From what pods and Deployments say to one documented reason and one sentence.

The cluster reports causes in a dozen places (conditions, container states, termination messages, the agent's report).
This package reads them all and gives the root cause; it must never decide what to do about it.
"""
