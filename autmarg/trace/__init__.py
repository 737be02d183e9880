"""From a NumPyro model to a :class:`~autmarg.ir.program.Program`."""
