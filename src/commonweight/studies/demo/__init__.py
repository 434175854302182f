"""The whole pipeline with tiny networks."""
