"""The table of overlaps: its numbers, its rows, its files."""
