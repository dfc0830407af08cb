"""What the library says is plain English: phrases that have to be read twice do not occur."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

import zarrtrace

PACKAGE = Path(zarrtrace.__file__).parent
# "There is no chunk" and "no draw is lost" are good English, and so is "is no longer".
PHRASES = {
    "is not a": r"(?<!there )(?<!There )\b(?:is|are) no (?!\w+er\b|more\b)\w+",
    "again": r"\banew\b",
    "fix": r"\b[Mm]end(?:s|ed|ing)?\b",
    "that many": r"\bso many\b(?! that\b)",
    "continue": r"\b(?:goes|go|going) on\b",
    "existing": r"\bthat (?:are|is) there\b",
    "whatever the state of": r"\bwhatever becomes of\b",
    "a subject": r"(?:^|[.:] )Of (?:what|the|any|a|one|each|which|all)\b",
}
# In a docstring a function does not give: it returns. "Give a mapping" in an error is a request.
DOCSTRING_PHRASES = {"returns": r"\b[Gg]ives\b"}


def texts(source: str) -> list[tuple[int, str, bool]]:
    """Each string and comment: its line, its text on one line, whether it is a docstring."""
    found: list[tuple[int, str, bool]] = []
    starts_statement = True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "COMMENT":
            text = token.string.lstrip("# ")
            line, before, _ = found[-1] if found else (0, "", False)
            if before and token.start[0] == line + before.count("\n") + 1:
                found[-1] = (line, f"{before}\n{text}", False)
            else:
                found.append((token.start[0], text, False))
        elif kind in ("STRING", "FSTRING_MIDDLE"):
            text = token.string.strip("rbf\"'")
            found.append((token.start[0], text, starts_statement))
        if kind not in ("COMMENT", "NL"):
            starts_statement = kind in ("NEWLINE", "INDENT", "DEDENT", "ENCODING")
    return [(line, " ".join(text.split()), is_docstring) for line, text, is_docstring in found]


def hard_to_read(source: str) -> list[tuple[int, str, str]]:
    """Each phrase that occurs: its line, the phrase with some words around it, plain words."""
    return [
        (line, text[max(match.start() - 30, 0) : match.end() + 30], plain)
        for line, text, is_docstring in texts(source)
        for plain, phrase in (PHRASES | (DOCSTRING_PHRASES if is_docstring else {})).items()
        for match in re.finditer(phrase, text)
    ]


@pytest.mark.once("oldest")
@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('raise ValueError(f"{name} is no list")', ["is not a"]),
        ("# The rows are written anew, and\n# those that are there stay.", ["again", "existing"]),
        ('def count():\n    """Gives the count, of so many draws."""', ["that many", "returns"]),
        ('def count():\n    """Count, and this gives it."""', ["returns"]),
        ('x = "mend the cause and go on"', ["fix", "continue"]),
        ('"""Rows. Of the last one nothing is known."""', ["a subject"]),
        ('x = "there is no chunk, and no draw is lost; it is no longer there"', []),
        ('raise ValueError("give a mapping: what it gives goes into the row")', []),
        ('def mended(so_many):\n    return "one of the rows"', []),
    ],
)
def test_the_phrases_are_found_and_good_english_is_not(source: str, found: list[str]) -> None:
    assert [plain for _, _, plain in hard_to_read(source)] == found


@pytest.mark.once("oldest")
def test_the_library_speaks_plain_english() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {phrase!r}: say {plain!r}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, phrase, plain in hard_to_read(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)
