"""A built page in a headless browser: its console, its requests, and what a script returns."""

import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

# What the theme's own scripts print about themselves and about pages that come from a file.
_THEIRS = ("[PST]", "[togglebutton]", "THEBE_JS_URL", "/_static/", "invalid theme mode")


class Look:
    """A page; ``messages``: its console, without the theme's; ``requests``: all."""

    def __init__(self, page: Any) -> None:
        self.page, self.messages, self.requests = page, list[str](), list[str]()
        page.on("console", lambda message: self._note(f"{message.text} ({message.location})"))
        page.on("pageerror", lambda error: self._note(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: Path) -> None:
        self.messages.clear()
        self.requests.clear()
        self.page.goto(path.as_uri())

    def run(self, script: str) -> Any:
        """What ``script``, the body of an async function, returns."""
        return self.page.evaluate(f"async () => {{ {script} }}")

    def _note(self, text: str) -> None:
        if not any(theirs in text for theirs in _THEIRS):
            self.messages.append(text)


@contextmanager
def looking(width: int = 1400, scheme: str = "light"):
    """A browser window of this width, in light or dark colours."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium to open the page with")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=browser, args=["--no-sandbox", "--disable-gpu"]
        )
        window = opened.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        yield Look(window.new_page())
        opened.close()


def looked_at(page: Path, script: str, width: int = 1400) -> Any:
    """What ``script``, the body of an async function, returns; our console must stay empty."""
    with looking(width) as look:
        look.open(page)
        result = look.run(script)
        assert not look.messages, look.messages
    return result
