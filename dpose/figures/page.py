"""HTML elements with a script of `dpose/assets` and its data, for pages without a server."""

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

_SCRIPTS = Path(__file__).parents[1] / "assets"
_counter = itertools.count(1)


def element(kind: str, script: str, content: Any, style: str = "", library: str = "") -> str:
    """A <div> of the class `kind`, and the call of the script's function with it and `content` (JSON).

    library: another script, whose function is passed as a third argument.
    """
    payload = json.dumps(content, separators=(",", ":")).replace("</", "<\\/")  # must not end the script
    name = f"{kind}-{next(_counter)}-{hashlib.sha256(payload.encode()).hexdigest()[:8]}"
    function = (_SCRIPTS / script).read_text(encoding="utf-8")
    passed = f", (\n{(_SCRIPTS / library).read_text(encoding='utf-8')})" if library else ""
    call = f'(\n{function})(document.getElementById("{name}"), {payload}{passed});'
    return f'<div id="{name}" class="{kind}" style="{style}"></div><script>{call}</script>'
