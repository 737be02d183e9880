"""Columns that follow one another in time: what they are, and how they are filtered."""
