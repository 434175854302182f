"""Data: rows of text or numbers with labels, where they come from, and how they become batches."""
