"""Will these models merge? Trial merges in memory, every row scored, and the layers that are in each other's way."""
