"""Supermask networks: one frozen network, one learned mask and one set of batch-norm statistics per task."""
