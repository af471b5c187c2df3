"""The page as one HTML document, and the policy that lets it load nothing else.

The policy names style and script by their digests, so that nothing that finds its way into the page
runs, and lets the script talk to this server alone.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
SCRIPTS = ("dom.js", "charts.js", "live.js", "playground.js", "explanation.js")
"""In the order in which they run."""


@cache
def document() -> tuple[str, str]:
    """Give the document, and its Content-Security-Policy."""
    style = _text("page.css")
    script = '"use strict";\n' + "".join(map(_text, SCRIPTS))
    text = _text("page.html").replace("{{style}}", style).replace("{{script}}", script)
    policy = (
        "default-src 'none'",
        f"style-src {_digest(style)}",
        f"script-src {_digest(script)}",
        "connect-src 'self'",
        # An empty icon, in the document: browsers would ask for one elsewhere.
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
    return text, "; ".join(policy)


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
