"""Plans and programs for people to read."""
