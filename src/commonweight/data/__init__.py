"""Data: rows of text, numbers or images with labels, where they come from, how they become batches and tasks."""
