"""The style sheet of the demonstration's page, apart so that `page.py` is about what the page says."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1f23; --soft: #5c6570; --ground: #fbfaf7; --card: #fff; --line: #e2dfd8;
  --series-1: #b9b2a5; --series-2: #7a9cc6; --series-3: #c8552d; --good: #2f7d4f; --bad: #b3342f; }
@media (prefers-color-scheme: dark) { :root { --ink: #ecebe6; --soft: #a3a9b0; --ground: #16181b; --card: #1f2226;
  --line: #34383d; --series-1: #6f6a60; --series-2: #6d90bd; --series-3: #e2703f; --good: #62b988; --bad: #e7776f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 17px/1.55 system-ui, sans-serif; }
main { max-width: 860px; margin: 0 auto; padding: 48px 24px 80px; }
h1 { font-size: 34px; line-height: 1.15; margin: 0 0 16px; letter-spacing: -0.01em; text-wrap: balance; }
h2 { font-size: 23px; margin: 0 0 8px; } h3 { font-size: 16px; margin: 28px 0 4px; }
section { margin-top: 48px; border-top: 1px solid var(--line); padding-top: 24px; }
p { margin: 0 0 14px; max-width: 68ch; } .lead { font-size: 19px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 8px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child, .words { text-align: left; }
thead th { font-weight: 600; color: var(--soft); font-size: 14px; }
tbody th { font-weight: 500; } .chosen th, .chosen td { font-weight: 700; } .words { white-space: normal; }
small { font-size: 13px; font-weight: 500; } .up { color: var(--good); } .down { color: var(--bad); }
svg { width: 100%; height: auto; font-size: 13px; } svg text { fill: var(--soft); } svg .value { fill: var(--ink); }
.grid { stroke: var(--line); } .curve polyline { fill: none; stroke: var(--series-3); stroke-width: 2.5; }
.curve circle { fill: var(--series-3); } .legend span { margin-right: 18px; font-size: 14px; color: var(--soft); }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px; }
.row { display: flex; gap: 10px; align-items: center; margin: 0 0 18px; overflow-x: auto; }
figure { margin: 0; flex: 0 0 112px; }
img { width: 112px; height: 112px; object-fit: cover; border-radius: 8px; display: block;
  border: 3px solid transparent; background: var(--card); } .query img { border-color: var(--ink); }
.right img { border-color: var(--good); } .wrong img { border-color: var(--bad); }
figcaption { font-size: 12.5px; color: var(--soft); text-align: center; margin-top: 4px; }
.right figcaption { color: var(--good); }
.wrong figcaption { color: var(--bad); } .arrow { color: var(--soft); font-size: 20px; }
code { font: 14px/1.5 ui-monospace, monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 16px; overflow-x: auto; }
"""
