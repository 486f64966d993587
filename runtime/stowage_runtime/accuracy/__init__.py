"""The accuracy check inside its pod: runs the user's prompts on a baseline and a candidate, and bounds the loss.

Engines are started by the agent's own launch code, one after the other, so one set of GPUs is enough. Nothing here
says whether a loss is acceptable: that is the operator's judgement.
"""
