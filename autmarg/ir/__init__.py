"""The program as a value: nodes and tape, its text and store, edits, checks."""
