"""Passes: frozen dataclasses that turn a program into a program."""
