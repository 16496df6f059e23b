"""A page in a headless browser: its console, its requests, and what a script on it returns."""

from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Messages of the theme's own scripts, and those about pages from a file.
_OF_THE_THEME = ("[PST]", "[togglebutton]", "THEBE_JS_URL", "/_static/", "invalid theme mode")


class Window:
    """A page, the messages of its ``console`` without the theme's, and ``requests`` elsewhere."""

    def __init__(self, page: Any) -> None:
        self.page, self.console, self.requests = page, list[str](), list[str]()
        page.on("console", lambda message: self._hear(f"{message.text} ({message.location})"))
        page.on("pageerror", lambda error: self._hear(str(error)))
        page.on("request", lambda request: self._note(request.url))

    def open(self, path: Path) -> None:
        self.console.clear()
        self.requests.clear()
        self.page.goto(path.as_uri())

    def run(self, script: str) -> Any:
        """What ``script``, the body of an async function, returns."""
        return self.page.evaluate(f"async () => {{ {script} }}")

    def _hear(self, text: str) -> None:
        if not any(part in text for part in _OF_THE_THEME):
            self.console.append(text)

    def _note(self, url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:")):
            self.requests.append(url)


@contextmanager
def open_window(browser: Any, width: int = 1400, scheme: str = "light"):
    """A window of the fixture ``browser``, of this width, in light or dark colours."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    yield Window(context.new_page())
    context.close()


def run_on_page(browser: Any, page: Path, script: str, width: int = 1400) -> Any:
    """What ``script``, the body of an async function, returns; the console stays silent."""
    with open_window(browser, width) as window:
        window.open(page)
        result = window.run(script)
        assert not window.console, window.console
    return result
