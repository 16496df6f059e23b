"""A built page in a headless browser: what it says, what it asks for, and what its script finds."""

import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

# What the theme's own scripts say of themselves and of pages that come from a file.
_THEIRS = ("[PST]", "[togglebutton]", "THEBE_JS_URL", "/_static/", "invalid theme mode")


class Look:
    """A page that was opened; ``said``: its console, without the theme's; ``asked``: elsewhere."""

    def __init__(self, page: Any) -> None:
        self.page, self.said, self.asked = page, list[str](), list[str]()
        page.on("console", lambda message: self._hear(f"{message.text} ({message.location})"))
        page.on("pageerror", lambda error: self._hear(str(error)))
        page.on("request", lambda request: self._note(request.url))

    def open(self, path: Path) -> None:
        self.said.clear()
        self.asked.clear()
        self.page.goto(path.as_uri())

    def run(self, script: str) -> Any:
        """What ``script``, the body of an async function, returns."""
        return self.page.evaluate(f"async () => {{ {script} }}")

    def _hear(self, text: str) -> None:
        if not any(theirs in text for theirs in _THEIRS):
            self.said.append(text)

    def _note(self, url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:")):
            self.asked.append(url)


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
    """What ``script``, the body of an async function, returns; our console stays silent."""
    with looking(width) as look:
        look.open(page)
        found = look.run(script)
        assert not look.said, look.said
    return found
