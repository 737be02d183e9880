"""Conjugacies: a language in which they are written, their proof, and where a program has one."""
