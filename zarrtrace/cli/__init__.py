"""The command `zarrtrace`: a demo, and a look at a trace. Each command has a module."""

from .command import build_parser, main

__all__ = ["build_parser", "main"]
