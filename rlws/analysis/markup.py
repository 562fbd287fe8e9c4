"""A page of HTML that stands alone: nothing is fetched, nothing is executed."""

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Said to the browser, too: whatever might slip through, it neither runs nor loads anything.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #777; --mark: #fde68a; --on-mark: #222;
  --warn: #b45309; }
@media (prefers-color-scheme: dark) { :root { --soft: #aaa; --mark: #854d0e; --on-mark: #fff;
  --warn: #fbbf24; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; margin-bottom: .2rem; overflow-wrap: anywhere; }
h2 { margin: 2.2rem 0 .6rem; font-size: 1.25rem; }
.soft { color: var(--soft); }
.warn { color: var(--warn); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem 1.2rem .3rem 0;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
td.number, th.number { text-align: right; white-space: nowrap; }
mark { background: var(--mark); color: var(--on-mark); padding: 0 .25em; border-radius: .2em; }
pre { overflow-x: auto; padding: .7rem 1rem; border: 1px solid var(--line); border-radius: .4rem; }
code, pre { font-size: .9em; }
figure { margin: 1rem 0; }
figcaption { color: var(--soft); font-size: .9em; }
svg { max-width: 100%; height: auto; }
svg text { fill: currentColor; }
video { max-width: 100%; width: 24rem; }
.row { display: flex; flex-wrap: wrap; gap: 0 1.5rem; }
summary { cursor: pointer; }
"""


class Html(str):
    """Text that is HTML already; all other text is escaped when it enters a tag."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str) -> Html:
    """Returns an element; an attribute that Python reserves ends in _, an empty value stands alone.

    Children that are no Html are escaped, and so are attributes.
    """
    given = "".join(
        f" {key.rstrip('_')}" + (f'="{html.escape(value)}"' if value else "")
        for key, value in attributes.items()
    )
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def join(parts: Iterable[str]) -> Html:
    """Returns parts one after the other, escaped where they are no Html."""
    return Html("".join(p if isinstance(p, Html) else html.escape(p) for p in parts))


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()
) -> Html:
    """Returns a table; `numbers` are the columns that are set to the right."""
    row = lambda kind, cells: tag(
        "tr",
        *(
            tag(kind, cell, **{"class": "number"} if i in numbers else {})
            for i, cell in enumerate(cells)
        ),
    )
    body = tag("tbody", *(row("td", cells) for cells in rows))
    return tag("div", tag("table", tag("thead", row("th", header)), body), class_="wide")


def page(title: str, *body: str) -> str:
    """Returns a whole document."""
    head = join([
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", title),
        Html(f"<style>{_STYLE}</style>"),
    ])  # fmt: skip
    whole = tag("html", tag("head", head), tag("body", tag("main", *body)), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n"


def data_uri(content: bytes, kind: str) -> str:
    """Returns the address that holds the content itself, which is of a kind such as video/mp4."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def svg(figure: "Figure", name: str, description: str) -> Html:
    """Returns a figure as an element; text in the colour of the page around it.

    Args:
      figure: of matplotlib.
      name: sets its ids apart from those of other figures on the page.
      description: for those who do not see it.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", text)
    label = html.escape(description)
    return Html(text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))
