"""How a page looks: its colours, light and dark, and the frame that its parts are in."""

from __future__ import annotations

# Eight lines that people who see few colours tell apart, on white and on black (Paul Tol's).
LINES = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999933", "#cc6633")
GOOD, BAD, QUIET = "#4477aa", "#dd4455", "#808890"

# Bokeh puts each part into a tree of its own, which inherits these variables and no rules.
PAGE_CSS = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --paper: #ffffff;
  --panel: #f5f6f8; --rule: #d9dde2; --good: #1f7a3a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e7ec; --soft: #9aa5b1; --paper: #14171b; --panel: #1d2126; --rule: #353c45;
    --good: #63c07f; --bad: #ff8a80; } }
* { box-sizing: border-box; }
html, body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { display: grid; grid-template-columns: repeat(12, minmax(0, 1fr)); gap: 0 24px;
  max-width: 1360px; margin: 0 auto; padding: 12px 20px 48px; }
main > div { grid-column: span 12; min-width: 0; }
main > div.half { grid-column: span 6; }
main > div.quarter { grid-column: span 3; }
@media (max-width: 900px) { main { padding: 8px 12px 32px; }
  main > div.half { grid-column: span 12; } main > div.quarter { grid-column: span 6; } }
"""

# Bokeh gives what is inside a column a font of its own.
TEXT_CSS = """
:host, .bk-clearfix { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
:host { color: var(--ink); }
.bk-clearfix { width: 100%; display: block; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 8px 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 28px 0 6px; padding-top: 10px; border-top: 1px solid var(--rule); }
p { margin: 4px 0; } p.soft, .soft { color: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); }
ul { list-style: none; margin: 8px 0; padding: 0; }
li { margin: 6px 0; padding: 8px 12px; background: var(--panel); border-left: 4px solid var(--rule);
  overflow-wrap: anywhere; }
li.good { border-color: var(--good); color: inherit; }
li.bad { border-color: var(--bad); color: inherit; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 3px 14px 3px 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
td.long { white-space: normal; overflow-wrap: anywhere; }
meter, progress { width: 120px; accent-color: var(--good); }
.key { display: inline-block; width: 14px; height: 4px; margin: 0 5px 3px 12px; }
.whole { white-space: nowrap; }
.name { font-weight: 600; overflow-wrap: anywhere; }
details { margin: 6px 0; } summary { cursor: pointer; color: var(--soft); }
"""

TABLE_CSS = """
:host { --ink2: var(--ink); border: 1px solid var(--rule); }
.slick-header, .slick-header-columns, .slick-header-column, .slick-headerrow {
  background: var(--panel) !important; color: var(--ink) !important; border-color: var(--rule); }
.slick-viewport, .slick-pane, .grid-canvas { background: var(--paper) !important; }
.slick-row, .slick-row.even, .slick-row.odd, .slick-cell { background: var(--paper) !important;
  color: var(--ink) !important; border-color: var(--rule) !important; }
.slick-row.odd .slick-cell, .slick-row.odd { background: var(--panel) !important; }
.slick-cell.selected { background: color-mix(in srgb, var(--good) 25%, var(--paper)) !important; }
.slick-cell { font-variant-numeric: tabular-nums; }
"""

INPUT_CSS = """
:host { font: 14px/1.4 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--ink); }
.bk-input, select.bk-input { background: var(--paper); color: var(--ink);
  border-color: var(--rule); }
select.bk-input option { background: var(--paper); color: var(--ink); }
label { color: var(--soft); }
"""

# Nothing leaves the file of a report. Bokeh evaluates the callbacks that it was given.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)

TEMPLATE = """{% if roots %}{% from macros import embed %}{% endif %}<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{% if policy %}<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
{% endif %}<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{{ title | e }}</title>
<style>{{ page_css }}</style>
</head>
<body>
<main>
{% for root in roots %}<div>{{ embed(root) }}</div>
{% endfor %}
{{ early }}
{{ parts }}
</main>
{{ bokeh_js }}
{{ drawing }}
{{ plot_script }}
</body>
</html>
"""
