"""A built page in a headless browser, with a few lines of script that look at it."""

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

_FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"

_THEIRS = ("THEBE_JS_URL", "/_static/")  # what the theme's own scripts say


def looked_at(page: Path, script: str, width: int = 1400, wait: int = 3000) -> Any:
    """What ``script``, the body of an async function, returns; our console stays silent."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium to open the page with")
    asked = f"""<script>addEventListener("load", async () => {{
      try {{ document.title = "found " + JSON.stringify(await (async () => {{ {script} }})()); }}
      catch (error) {{ document.title = "found " + JSON.stringify("error: " + error); }}
    }});</script></body>"""
    copy = page.with_name(f"{page.stem}-looked-at.html")
    copy.write_text(page.read_text().replace("</body>", asked))
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *_FLAGS.split(), f"--user-data-dir={profile}"]
        command += [f"--window-size={width},2000", f"--virtual-time-budget={wait}"]
        command += ["--enable-logging=stderr", "--dump-dom", copy.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    copy.unlink()
    found = re.search(r"<title>found (.*?)</title>", done.stdout, re.DOTALL)
    assert found, "the script did not come to its end"
    said = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    ours = [line for line in said if not any(theirs in line for theirs in _THEIRS)]
    assert not ours, ours
    return json.loads(found.group(1).replace("&amp;", "&").replace("&lt;", "<"))
