"""Types of the custom resource: what a user may ask for and what Stowage answers.

This package is the vocabulary that every other layer shares (spec, status, conditions, reasons) and the
source that the CRD and the reference pages are generated from. It must never read a clock, do IO or know
how a wish is fulfilled.
"""
