"""The exact engine: the diagonal Fisher of any network at the price of one ordinary pass."""
