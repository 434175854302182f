"""The measures, all derived from Gram matrices."""
