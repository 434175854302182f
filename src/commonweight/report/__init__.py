"""View: finished data as text. Nothing is computed here."""
