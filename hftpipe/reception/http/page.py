"""The page for people: the OpenAPI document as plain HTML, with nothing fetched from elsewhere."""

from html import escape
from typing import Final

import orjson

from hftpipe.config import ServeLimits
from hftpipe.reception.http.document import tree
from hftpipe.reception.http.openapi import Node

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #0b6bcb; }
@media (prefers-color-scheme: dark) { :root { --accent: #6cb2ff; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 0 auto; padding: 1rem; }
h1 { margin: .5rem 0; } h2 { margin: 0; font-size: 1rem; overflow-wrap: anywhere; }
a { color: var(--accent); }
article { border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; margin: 1rem 0; }
code, pre { font: .875rem/1.5 ui-monospace, monospace; }
pre { background: var(--soft); padding: .75rem; border-radius: .5rem; overflow-x: auto; }
.method { color: var(--accent); font-weight: 700; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .375rem .75rem .375rem 0; border-top: 1px solid var(--line); }
dt { font-weight: 600; margin-top: .75rem; }
dd { margin: 0; }
"""

_EXAMPLES: Final = {
    "submit": """curl http://127.0.0.1:8080/v1/transactions \\
  -H 'Authorization: Bearer hft_…' -H 'Content-Type: application/json' \\
  -d '{"type":"deposit","account":1,"tx":1,"amount":"10.00"}'

{"status":"durable","entry":"1/1-0"}""",
    "account": """curl http://127.0.0.1:8080/v1/accounts/1 -H 'Authorization: Bearer hft_…'

{"account":1,"available":"10.0000","held":"0.0000","total":"10.0000","locked":false,"entry":"1/1-0"}""",
}
"""By operation; what stands in them needs no token where the service has no token file."""


def page(limits: ServeLimits) -> bytes:
    """The page, in UTF-8."""
    document = tree(limits)
    info = document["info"]
    operations = "".join(
        _operation(method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(_schema(name, schema) for name, schema in document["components"]["schemas"].items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(info["title"])}: HTTP interface</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(info["title"])}</h1>
<p>{_text(info["description"])}</p>
<p>The same for programs: <a href="/openapi.json">openapi.json</a>. Errors have one shape:
<code>{{"error":"…","message":"…"}}</code>.</p>
<main>{operations}</main>
<h2>Shapes</h2>
{schemas}
</body>
</html>
""".encode()


def _operation(method: str, path: str, operation: Node) -> str:
    example = _EXAMPLES.get(operation["operationId"], "")
    rows = "".join(
        f"<tr><td><code>{code}</code></td><td>{_text(answer['description'])}</td></tr>"
        for code, answer in sorted(operation["responses"].items())
    )
    return (
        f'<article><h2><span class="method">{method}</span> <code>{escape(path)}</code></h2>'
        f"<p>{_text(operation['summary'])}. {_text(operation.get('description', ''))}</p>"
        f"{_parameters(operation.get('parameters', []))}"
        + (f"<pre>{escape(example)}</pre>" if example else "")
        + f'<div class="scroll"><table><tr><th>Status</th><th>Meaning</th></tr>{rows}</table></div></article>'
    )


def _parameters(parameters: list[Node]) -> str:
    found = "".join(
        f"<dt><code>{escape(each['name'])}</code>, in the {each['in']}</dt>"
        f"<dd>{_text(each.get('description', ''))} <code>{escape(_compact(each['schema']))}</code></dd>"
        for each in parameters
    )
    return f"<dl>{found}</dl>" if found else ""


def _schema(name: str, schema: Node) -> str:
    text = orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode()
    return f"<details><summary><code>{escape(name)}</code></summary><pre>{escape(text)}</pre></details>"


def _compact(schema: Node) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "pattern" in schema:
        return f"{schema['type']} like {schema['pattern']}"
    return f"{schema['type']} {schema['minimum']} to {schema['maximum']}"


def _text(text: str) -> str:
    """Prose with `code` in it."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))
