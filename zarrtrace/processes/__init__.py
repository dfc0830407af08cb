"""Run the chains of a trace in parallel: `run` says how, and starts and watches them.

A chain is a process of its own (`one_per_chain`), or a task of any executor (`executors`). Either
way its draws are in the trace, and nothing but the trace says how far it is.
"""

from .run import run

__all__ = ["run"]
