"""Pages as Chromium shows them: one start of the browser looks at many pages and widths."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (apt-get install chromium)")
#: Sends what a page is to the harness around it; `FOUND` is replaced by further fields.
_PROBE = """<script>addEventListener("load", () => { BEFORE; parent.postMessage({frame: window.name, at: location.hash,
inner: innerWidth, wide: document.documentElement.scrollWidth, FOUND}, "*"); })</script>"""


def looked_at(
    pages: Sequence[tuple[Path, str, int]], folder: Path, before: str = "", found: str = ""
) -> list[dict[str, Any]]:
    """What each page is in the browser, in the order of `pages`.

    Args:
        pages: file, what follows its address (`"#q=x"`), and width of the window in px.
        folder: an empty one, for copies of the pages, and the browser's own files.
        before: JavaScript that runs in the page before it is measured. found: `key: value` pairs to send besides.

    Returns:
        `inner`, width of the window, `wide`, width of the document, and what `found` names.
    """
    probe = _PROBE.replace("BEFORE", before).replace("FOUND", found)
    frames = []
    for number, (file, after, width) in enumerate(pages):
        copy = folder / f"page{number}.html"
        copy.write_text(file.read_text(encoding="utf-8").replace("</body>", f"{probe}</body>"), encoding="utf-8")
        frames.append(f'<iframe name="{number}" width="{width}" height="700" src="{copy.name}{after}"></iframe>')
    harness = folder / "harness.html"
    harness.write_text(
        "<body><pre></pre><script>addEventListener('message', e => document.querySelector('pre').textContent +="
        f" JSON.stringify(e.data) + '\\n')</script>{''.join(frames)}</body>"
    )
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
        + ["--virtual-time-budget=5000", "--window-size=1300,900", "--dump-dom", harness.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    text = done.stdout.split("<pre>")[1].split("</pre>")[0].replace("&lt;", "<").replace("&gt;", ">")
    lines = [json.loads(line) for line in text.replace("&amp;", "&").splitlines()]
    said = {int(line["frame"]): line for line in lines}
    assert sorted(said) == list(range(len(pages))), f"{len(said)} of {len(pages)} pages answered"
    return [said[number] for number in range(len(pages))]
