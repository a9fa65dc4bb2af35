"""Make pages out of templates: `Renderer`."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

import matcompute
from matcompute.server.access import ANONYMOUS, node_of
from matcompute.server.portal import view
from matcompute.server.portal.words import LANGUAGES, Words

__all__ = ["SECURITY", "STATIC", "Renderer"]

#: Folder and address of styles and scripts.
STATIC = Path(__file__).parent / "static"
STATIC_URL = "/portal/static"

#: Nothing but the node itself, and no script or style inside a page.
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # What somebody may see can change at any time, and depends on who asks.
    "Cache-Control": "private, no-cache",
    "Vary": "Cookie, Authorization",
}


class Renderer:
    """The templates, with what every page needs."""

    def __init__(self) -> None:
        self.environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.globals["f"] = SimpleNamespace(
            number=view.format_number,
            size=view.format_size,
            time=view.format_time,
            formula=view.format_formula,
            units=view.format_units,
        )

    def text(self, request: Request, language: str, template: str, **values: Any) -> str:
        """Return a page or a piece of one as text."""
        words, settings = Words(language), node_of(request).settings
        query = f"?{request.url.query}" if request.url.query else ""
        path = request.url.path.split("/", 2)
        rest = path[2] if len(path) > 2 else ""
        return self.environment.get_template(template).render(
            t=words,
            site=words.bilingual(settings.title.model_dump()),
            organisation=words.bilingual(settings.organisation.model_dump()),
            settings=settings,
            languages=LANGUAGES,
            in_language=lambda code: f"/{code}/{rest}{query}",
            static=static_url,
            version=matcompute.__version__,
            principal=getattr(request.state, "principal", ANONYMOUS),
            here=values.pop("here", ""),
            **values,
        )

    def page(
        self, request: Request, language: str, template: str, *, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """Return a page as an answer."""
        headers = SECURITY | {"Content-Language": LANGUAGES[language]}
        return HTMLResponse(self.text(request, language, template, **values), status, headers=headers)


@cache
def static_url(path: str) -> str:
    """Return the address of a file, which changes with its content."""
    digest = hashlib.sha256((STATIC / path).read_bytes()).hexdigest()[:10]
    return f"{STATIC_URL}/{path}?v={digest}"
