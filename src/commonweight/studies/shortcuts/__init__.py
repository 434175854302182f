"""Shortcuts planted in text: does shared knowledge overlap, does unshared not, and does averaging forget it?"""
