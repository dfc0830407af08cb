"""What the library says is plain English: phrases that have to be read twice do not occur."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

import zarrtrace

PACKAGE = Path(zarrtrace.__file__).parent
ROOT = PACKAGE.parent
GENERATED = {"tutorials", "generated", "_build"}
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


class Text(NamedTuple):
    """A string, a comment or a paragraph: the line it begins on, and its words on one line."""

    line: int
    words: str
    kind: Literal["docstring", "comment", "string", "name", "paragraph"]


def texts(source: str) -> list[Text]:
    """Each string and comment of a module, and the names of its tests."""
    found: list[Text] = []
    starts_statement, before = True, ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind, line = tokenize.tok_name[token.type], token.start[0]
        if kind == "COMMENT":
            text = token.string.lstrip("# ")
            last = found[-1] if found else Text(0, "", "string")
            if last.kind == "comment" and line == last.line + last.words.count("\n") + 1:
                found[-1] = last._replace(words=f"{last.words}\n{text}")
            else:
                found.append(Text(line, text, "comment"))
        elif kind in ("STRING", "FSTRING_MIDDLE"):
            text = token.string.strip("rbf\"'")
            found.append(Text(line, text, "docstring" if starts_statement else "string"))
        elif before == "def" and token.string.startswith("test_"):
            found.append(Text(line, token.string.replace("_", " "), "name"))
        if kind not in ("COMMENT", "NL"):
            starts_statement = kind in ("NEWLINE", "INDENT", "DEDENT", "ENCODING")
            before = token.string
    return [text._replace(words=" ".join(text.words.split())) for text in found]


def paragraphs(document: str) -> list[Text]:
    """Each paragraph, list or table of a document in Markdown or reStructuredText."""
    found = re.finditer(r"\S.*?(?=\n\s*\n|\s*\Z)", document, re.DOTALL)
    return [
        Text(document.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), "paragraph")
        for match in found
    ]


def hard_to_read(text: Text) -> list[tuple[str, str]]:
    """Each phrase that occurs, with some words around it, and plain words for it."""
    phrases = PHRASES | (DOCSTRING_PHRASES if text.kind == "docstring" else {})
    return [
        (text.words[max(match.start() - 30, 0) : match.end() + 30], plain)
        for plain, phrase in phrases.items()
        for match in re.finditer(phrase, text.words)
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
        ("def test_a_run_goes_on():\n    def it_goes_on(): ...", ["continue"]),
    ],
)
def test_the_phrases_are_found_and_good_english_is_not(source: str, found: list[str]) -> None:
    assert [plain for text in texts(source) for _, plain in hard_to_read(text)] == found


@pytest.mark.once("oldest")
def test_a_paragraph_of_a_document_is_read_as_one_line() -> None:
    document = "# Title\n\n- It goes\n  on.\n\n```text\nThis is\nno table.\n```\n"
    found = [(text.line, *hard_to_read(text)) for text in paragraphs(document)]
    assert [line for line, *_ in found] == [1, 3, 6]
    assert [plain for _, *phrases in found for _, plain in phrases] == ["continue", "is not a"]


def found_in(path: Path, found: list[Text]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{text.line}: {phrase!r}: say {plain!r}"
        for text in found
        for phrase, plain in hard_to_read(text)
    ]


@pytest.mark.once("oldest")
def test_the_library_speaks_plain_english() -> None:
    found = [
        line
        for path in sorted(PACKAGE.rglob("*.py"))
        for line in found_in(path, texts(path.read_text(encoding="utf-8")))
    ]
    assert not found, "\n".join(found)


@pytest.mark.once("oldest")
@pytest.mark.parametrize("folder", ["tests", "examples", "docs"])
def test_the_code_around_the_library_speaks_plain_english(folder: str) -> None:
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        # The gallery writes its pages beside the sources; this module has the phrases themselves.
        if path != Path(__file__) and not GENERATED & set(path.parts):
            said = texts(path.read_text(encoding="utf-8"))
            # The strings of tests are what the library says, or code.
            found += found_in(path, [text for text in said if text.kind != "string"])
    assert not found, "\n".join(found)


@pytest.mark.once("oldest")
def test_the_documents_speak_plain_english() -> None:
    documents = [
        *ROOT.glob("*.md"),
        *(path for end in ("md", "rst") for path in (ROOT / "docs").rglob(f"*.{end}")),
        PACKAGE / "FORMAT.md",
    ]
    found = [
        line
        for path in sorted(documents)
        if not GENERATED & set(path.parts)
        for line in found_in(path, paragraphs(path.read_text(encoding="utf-8")))
    ]
    assert not found, "\n".join(found)
