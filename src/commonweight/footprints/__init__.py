"""Footprints: where a network keeps one piece of knowledge, and how they are measured and stored."""
