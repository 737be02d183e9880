"""From the rewritten program to a NumPyro model, and back to the integrated sites."""
