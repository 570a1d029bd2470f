"""The report as one HTML page: tables and pictures inside it, readable in light and in dark."""

from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any

from bench.report import plots
from bench.report.results import GROUPS, HEAD, cells, from_json, heading, markdown, place, save
from bench.suite import Measured

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1f2328; --pale: #59636e; --line: #d8dee4; --ours: #c2410c; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0d1117; --ink: #e6edf3; --pale: #9198a1; --line: #30363d; --ours: #ff8a4c; }
}
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
       margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .75rem .25rem 0;
         text-align: right; vertical-align: top; }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left; }
th, .pale { color: var(--pale); font-weight: normal; font-size: 13px; }
tr.ours td:first-child { color: var(--ours); font-weight: 600; }
td:not(:last-child) { white-space: nowrap; }
td.why { text-align: left; color: var(--pale); font-style: italic; }
h3 { margin: 1.5rem 0 0; font-size: 16px; }
img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
"""


def picture(data: dict[str, Any], name: str) -> str:
    """A picture for both kinds of page, its bytes in the page itself."""
    dark, light = (
        f"data:image/png;base64,{b64encode(plots.png(data, name, theme)).decode()}" for theme in ("dark", "light")
    )
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
    return f'<p><picture>{source}<img alt="{name}" src="{light}"></picture></p>'


def _table(m: Measured, where: str) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in HEAD)
    lines = []
    for row in m.rows:
        c = [escape(x) for x in cells(m, row, where)]
        inside = (
            "".join(f"<td>{x}</td>" for x in c)
            if c[4]
            else f'<td>{c[0]}</td><td class="why" colspan="{len(HEAD) - 1}">{c[1]}</td>'
        )
        lines.append(f"<tr{' class=ours' if row.contender == m.base else ''}>{inside}</tr>")
    title = f'<h3>{escape(m.workload)}</h3><p class="pale">{escape(m.description)}</p>'
    return f'{title}<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def html(data: dict[str, Any]) -> str:
    """The whole page."""
    measured = from_json(data)
    pictures = "".join(picture(data, name) for name in plots.possible(data))
    parts = [f"<p>{escape(p)}</p>" for p in heading(data).split("\n\n")]
    for group, title in GROUPS.items():
        own = [m for m in measured if m.group == group]
        if own:
            parts += [f"<h2>{escape(title)}</h2>", *(_table(m, place(data)) for m in own)]
    left = "".join(f"<li>{escape(what)}: {escape(why)}</li>" for what, why in data["left out"].items())
    body = f"<h1>Throughput</h1>{pictures}{''.join(parts)}<h2>Left out</h2><ul>{left}</ul>"
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>gpuaug: '
        f"throughput</title><style>{STYLE}</style>"
    )
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def write(data: dict[str, Any], folder: Path) -> list[Path]:
    """results.json, report.md, report.html and the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    save(data, folder / "results.json")
    pictures = plots.write(data, folder)
    shown = "".join(f"\n![{p.stem.removesuffix('-light')}]({p.name})\n" for p in pictures if p.stem.endswith("_light"))
    (folder / "report.md").write_text(markdown(data) + shown, encoding="utf-8")
    (folder / "report.html").write_text(html(data), encoding="utf-8")
    return [folder / "results.json", folder / "report.md", folder / "report.html", *pictures]
