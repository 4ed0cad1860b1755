"""The documents' links: what a reader is sent to is there."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    {*ROOT.glob("*.md"), *(p for top in ("docs", "deploy", "examples") for p in (ROOT / top).rglob("*.md"))}
)
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)")
_HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)


def links(text: str) -> list[str]:
    """Return the targets of a document's links that lead to other files or to places in one."""
    targets = _LINK.findall(_CODE.sub("", text))
    return [target for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:", target)]


def anchors(text: str) -> set[str]:
    """Return the names of a document's headings in links."""
    headings = _HEADING.findall(re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_document_links_only_to_what_is_there(path: Path) -> None:
    """Every relative link names a file of this repository, and a heading of it where it says so."""
    for target in links(path.read_text(encoding="utf-8")):
        name, _, anchor = unquote(target).partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.is_relative_to(ROOT) and found.exists(), f"{target} is not there"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found.read_text(encoding="utf-8")), f"{target} has no such heading"


def test_links_are_found_and_code_is_not_read() -> None:
    """Links and images count; addresses elsewhere and what stands in code do not."""
    text = "[a](b.md#c) ![d](e.png) [f](https://g.org/h.md) `[i](j.md)`\n```console\n$ [k](l.md)\n```\n"
    assert links(text) == ["b.md#c", "e.png"]
    assert anchors("# Who may `do` what?\n") == {"who-may-do-what"}
