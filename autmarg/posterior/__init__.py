"""After the fit: what is asked of posterior draws, answered by exact conditionals."""
