"""The documents (docs/*.md) as pages, so that what the status page says leads to what to do, without another host."""

from __future__ import annotations

import re
from functools import cache
from html import escape
from itertools import pairwise
from pathlib import Path, PurePosixPath
from string import Template
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, redirect, send_from_directory, url_for
from markdown_it import MarkdownIt
from markdown_it.token import Token
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from market_data_store.config import resource

#: The page's own style and no script.
_PAGE = Template("""<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>$title – market-data-store</title>
    <link rel="icon" href="$static/icon.svg">
    <link rel="stylesheet" href="$static/page.css">
  </head>
  <body class="document">
    <nav><a href="$home">Status</a> <a href="$index">Documents</a></nav>
    <main class="text">
$text
    </main>
  </body>
</html>
""")
_IMAGES = (".png",)


def add_documents(page: Blueprint) -> None:
    """Add the documents to the blueprint of the status page, below `/docs/`."""

    @page.get("/docs/")
    def documents() -> Response:
        names = sorted(path.name for path in resource("docs").glob("*.md"))
        items = "".join(f'<li><a href="{escape(name)}">{escape(_title(name))}</a></li>' for name in names)
        return _html("Documents", f"<h1>Documents</h1><ul>{items}</ul>")

    @page.get("/docs")
    def without_slash() -> AnyResponse:
        return redirect(url_for("status_page.documents"))

    @page.get("/docs/<path:name>")
    def document(name: str) -> Response:
        if name.endswith(_IMAGES):
            return send_from_directory(resource("docs"), name)
        if name not in _names():
            raise NotFound(f"there is no document {name[:80]!r}; /docs/ lists them")
        return _html(_title(name), rendered(name))


def _html(title: str, text: str) -> Response:
    places = {
        "static": url_for("status_page.static", filename="").rstrip("/"),
        "home": url_for("status_page.show"),
        "index": url_for("status_page.documents"),
    }
    return Response(_PAGE.substitute(places, title=escape(title), text=text), mimetype="text/html")


@cache
def _names() -> frozenset[str]:
    docs = resource("docs")
    return frozenset(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))


@cache
def _title(name: str) -> str:
    first = Path(resource("docs"), name).read_text().partition("\n")[0]
    return first.removeprefix("# ")


@cache
def rendered(name: str) -> str:
    """Return a document as HTML, with the anchors that its links name; links to what is not served become text."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(Path(resource("docs"), name).read_text())
    for before, token in pairwise(tokens):
        if before.type == "heading_open":
            before.attrSet("id", anchor(token.content))
        _unlink(token.children or [], PurePosixPath(name).parent)
    return str(markdown.renderer.render(tokens, markdown.options, {}))


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _unlink(tokens: list[Token], folder: PurePosixPath) -> None:
    is_served = [True]
    for token in tokens:
        if token.type == "link_open":
            is_served.append(_is_served(str(token.attrGet("href")), folder))
        if token.type in ("link_open", "link_close") and not is_served[-1]:
            token.type, token.tag, token.nesting, token.content, token.attrs = "text", "", 0, "", {}
            is_served += [is_served.pop()]
        if token.type == "link_close":
            is_served.pop()


def _is_served(target: str, folder: PurePosixPath) -> bool:
    found = urlsplit(target)
    if found.scheme or not found.path:
        return True
    parts: list[Any] = []
    for part in (folder / found.path).parts:
        if part == ".." and not parts:
            return False
        parts = parts[:-1] if part == ".." else [*parts, part]
    name = "/".join(parts)
    return name in _names() or name.endswith(_IMAGES)
