"""Networks: where a model comes from, and what is recorded about it; supermask networks."""
