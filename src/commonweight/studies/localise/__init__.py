"""Does a footprint hold what it names? Sets of weights are grafted and reset, and every row is scored."""
