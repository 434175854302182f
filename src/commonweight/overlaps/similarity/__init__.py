"""How alike tasks are, from their batch-norm means."""
