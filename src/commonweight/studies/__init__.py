"""Studies: a line of work end to end, from models and data to a table."""
