"""Make zarrtrace.svg: the terminal of a real `zarrtrace demo`, run now. Not a test; run by hand."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import rich
from rich._export_format import CONSOLE_SVG_FORMAT

from zarrtrace.cli import demo
from zarrtrace.cli import main as zarrtrace

PICTURE = Path(__file__).parent.parent.parent / "zarrtrace.svg"
FONTS = "font-family: ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace;"


def main() -> None:
    # Not interactive: the bars are recorded once, as they stand at the end.
    rich.reconfigure(record=True, width=96, force_terminal=True, force_interactive=False)
    console = rich.get_console()

    def show(text: str) -> None:
        # The interpreter of an environment beside the trace, whatever runs this.
        text = text.replace(sys.executable, ".venv/bin/python")
        # rich has put an empty line after the bars already, which it does not in a terminal.
        console.print(text.removeprefix("\n"), markup=False, highlight=False)

    demo.print = show  # type: ignore[attr-defined]
    show("$ zarrtrace demo")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        zarrtrace(["demo"])
        os.chdir(PICTURE.parent)
    show(" ")
    # A picture that fetches nothing: the fonts of whoever looks at it.
    template = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    template = re.sub(r"font-family: [^;]*;", FONTS, template)
    svg = console.export_svg(title="zarrtrace demo", code_format=template, unique_id="zarrtrace")
    PICTURE.write_text(re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE), encoding="utf-8")


if __name__ == "__main__":
    main()
