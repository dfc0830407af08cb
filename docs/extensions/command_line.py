"""The reference of the command `zarrtrace`, made of the parser that the command uses."""

from __future__ import annotations

import argparse
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from zarrtrace.cli import build_parser


def lines_of(parser: argparse.ArgumentParser) -> list[str]:
    """reStructuredText: a section for each command with its usage and its arguments."""
    lines: list[str] = []
    commands = next(
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    summaries = {action.dest: action.help or "" for action in commands._choices_actions}
    for name, command in commands.choices.items():
        title = f"zarrtrace {name}"
        lines += [title, "-" * len(title), "", _sentence(summaries[name]), ""]
        lines += [f".. program:: {title}", "", ".. code-block:: text", ""]
        usage = command.format_usage().removeprefix("usage: ")
        lines += [f"   {line}" for line in usage.splitlines()] + [""]
        for action in command._actions:
            if action.help == argparse.SUPPRESS or "-h" in action.option_strings:
                continue
            lines += [f".. option:: {_signature(action)}", "", f"   {_help(action)}", ""]
    return lines


def _signature(action: argparse.Action) -> str:
    value = str(action.metavar or (action.dest.upper() if action.option_strings else action.dest))
    value = f"{value} ..." if action.nargs in ("+", "*") else value
    if not action.option_strings:
        return value
    takes_value = action.nargs != 0
    return ", ".join(f"{name} {value}" if takes_value else name for name in action.option_strings)


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace("(%(default)s)", f"By default ``{action.default}``.")
    return _sentence(text.replace(" By default", ". By default"))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


class CommandLine(SphinxDirective):
    """The directive `command-line`: all commands with their arguments."""

    def run(self) -> list[nodes.Node]:
        """Parse the text that was made of the parser."""
        text = "\n".join(lines_of(build_parser()))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
