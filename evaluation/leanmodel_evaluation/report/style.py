"""The page's style sheet: system fonts, light and dark, readable on paper; nothing from elsewhere."""

from __future__ import annotations

CSS = """
:root { color-scheme: light dark; --bg:#fff; --fg:#1a1f26; --soft:#5b6570; --rule:#dde2e7; --card:#f6f8fa;
  --large:#1f6feb; --lean:#1a7f37; --pair:#a03bd0; --other:#6e7781; --good:#1a7f37; --bad:#c11f2c; --warn:#9a6700; }
@media (prefers-color-scheme: dark) { :root { --bg:#0d1117; --fg:#e6edf3; --soft:#9aa5b1; --rule:#30363d;
  --card:#161b22; --large:#6cb0ff; --lean:#4ac26b; --pair:#d2a0ff; --other:#9aa5b1; --good:#4ac26b; --bad:#ff7b72;
  --warn:#e0b04a; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--bg); color:var(--fg); font:16px/1.5 system-ui,sans-serif; }
main { max-width:1080px; margin:0 auto; padding:24px 20px 64px; }
h1 { font-size:1.7rem; margin:0 0 4px; } h2 { font-size:1.25rem; margin:40px 0 8px; }
h2 { border-bottom:1px solid var(--rule); padding-bottom:4px; }
p { margin:6px 0; max-width:75ch; } .soft, caption { color:var(--soft); } small, .small { font-size:.85rem; }
a { color:var(--large); }
.badge { display:inline-block; font-weight:600; padding:2px 12px; border-radius:99px; border:2px solid; font-size:1rem; }
.badge.good { color:var(--good); } .badge.bad { color:var(--bad); } .badge.warn { color:var(--warn); }
.reason { font-size:1.1rem; margin:10px 0 16px; overflow-wrap:anywhere; }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:12px; margin:16px 0; }
.tile { background:var(--card); border:1px solid var(--rule); border-radius:10px; padding:12px 14px; }
.tile b { display:block; font-size:1.6rem; line-height:1.2; font-variant-numeric:tabular-nums; }
.tile span { display:block; color:var(--soft); font-size:.85rem; }
.warning { border-left:4px solid var(--warn); background:var(--card); padding:8px 14px; margin:8px 0; }
.scroll { overflow-x:auto; }
table { border-collapse:collapse; width:100%; margin:8px 0; font-size:.92rem; }
caption { text-align:left; padding:4px 0; font-size:.85rem; }
th, td { text-align:left; padding:6px 10px; border-bottom:1px solid var(--rule); vertical-align:top; }
thead th, tbody th { white-space:nowrap; }
th.prompt { font-weight:400; white-space:pre-wrap; overflow-wrap:anywhere; min-width:260px; } td.n, th.n { text-align:right; font-variant-numeric:tabular-nums; white-space:nowrap; }
td small { color:var(--soft); display:block; }
td.text { white-space:pre-wrap; overflow-wrap:anywhere; max-width:420px; }
.yes { color:var(--good); font-weight:600; } .no { color:var(--bad); font-weight:600; }
dl { display:grid; grid-template-columns:minmax(140px,max-content) 1fr; gap:4px 20px; margin:8px 0; }
dt { color:var(--soft); } dd { margin:0; overflow-wrap:anywhere; }
code { font-family:ui-monospace,monospace; font-size:.9em; overflow-wrap:anywhere; }
details { margin:8px 0; } summary { cursor:pointer; }
figure { margin:8px 0; } svg { width:100%; max-width:760px; height:auto; display:block; font-family:inherit; }
svg text { fill:var(--fg); font-size:13px; } svg text.small { fill:var(--soft); font-size:12px; }
svg text.label, svg text.level-text { paint-order:stroke; stroke:var(--bg); stroke-width:4px; }
svg text.axis { fill:var(--soft); font-size:12.5px; }
svg .grid { stroke:var(--rule); stroke-width:1; } svg .level { stroke:var(--warn); stroke-width:1.5; stroke-dasharray:2 4; }
svg text.level-text { fill:var(--warn); }
svg .large { fill:var(--large); stroke:var(--large); } svg .lean { fill:var(--lean); stroke:var(--lean); }
svg .pair { fill:var(--pair); stroke:var(--pair); } svg .other { fill:var(--other); stroke:var(--other); }
svg text.large-text { fill:var(--large); } svg text.lean-text { fill:var(--lean); } svg text.pair-text { fill:var(--pair); }
svg .line { fill:none; stroke-width:2; } svg .dashed { stroke-dasharray:5 5; stroke-width:1.5; }
svg .whisker { stroke-width:2.5; } svg .ring { fill:var(--bg); stroke-width:2.5; }
@media print { main { max-width:none; } .tile, .warning { break-inside:avoid; } h2 { break-after:avoid; } }
"""
