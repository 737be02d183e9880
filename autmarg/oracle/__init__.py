"""The parts of ``autmarg.verify``: points, both sides of the identity at them, and the report."""
