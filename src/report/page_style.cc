#include "report/page_assets.h"

namespace hadal::report {

std::string_view page_style() {
  return R"css(
:root { --bg: #f6f7f9; --card: #ffffff; --ink: #1a1f27; --dim: #667085; --faint: #98a1b0; --line: #e4e7ec; --grid: #eef0f3;
  --accent: #2563c9; --shadow: 0 1px 2px rgba(16,24,40,.06); --mid: #f1f2f4; }
:root[data-theme=dark] { --bg: #0f1216; --card: #171b21; --ink: #e6e9ee; --dim: #98a2b3; --faint: #6b7585; --line: #2a3039; --grid: #222831;
  --accent: #6ea8ff; --shadow: none; --mid: #262c34; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  font-variant-numeric: tabular-nums; }
main { max-width: 1320px; margin: 0 auto; padding: 20px 24px 60px; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 6px 14px; margin-bottom: 14px; }
h1 { font-size: 20px; font-weight: 650; margin: 0; letter-spacing: -.01em; }
header .what { color: var(--dim); }
h2 { font-size: 15px; font-weight: 600; margin: 28px 0 10px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-bottom: 16px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; box-shadow: var(--shadow); }
.tile b { display: block; font-size: 22px; font-weight: 620; letter-spacing: -.02em; line-height: 1.25; }
.tile span { color: var(--dim); font-size: 12px; }
.bar { position: sticky; top: 0; z-index: 5; display: flex; flex-wrap: wrap; align-items: center; gap: 8px 18px; padding: 10px 0;
  background: var(--bg); border-bottom: 1px solid var(--line); margin-bottom: 16px; }
.bar .push { margin-left: auto; }
.bar label { color: var(--dim); display: inline-flex; align-items: center; gap: 6px; }
.bar input[type=range] { width: 110px; accent-color: var(--accent); }
.seg { display: inline-flex; border: 1px solid var(--line); border-radius: 8px; overflow: hidden; background: var(--card); }
button { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 3px 11px; cursor: pointer; }
.seg button { border: 0; border-radius: 0; color: var(--dim); }
.seg button + button { border-left: 1px solid var(--line); }
.seg button[aria-pressed=true] { background: var(--accent); color: #fff; }
:root[data-theme=dark] .seg button[aria-pressed=true] { color: #0f1216; }
button:focus-visible, input:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
.runs { display: flex; flex-wrap: wrap; gap: 6px; }
.run { display: inline-flex; align-items: center; gap: 7px; }
.run i { width: 14px; height: 3px; border-radius: 2px; }
.run[aria-pressed=false] { opacity: .4; }
.grid { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 14px; }
.wide { grid-column: 1 / -1; }
@media (max-width: 860px) { .grid { grid-template-columns: minmax(0, 1fr); } main { padding: 14px 12px 40px; } }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; box-shadow: var(--shadow); padding: 12px 14px 8px; min-width: 0; }
.card h3 { display: flex; flex-wrap: wrap; gap: 2px 10px; align-items: baseline; font-size: 14px; font-weight: 600; margin: 0 0 4px; }
.card h3 small { color: var(--dim); font-weight: 400; font-size: 12px; }
.card h3 small.key::before { content: ""; display: inline-block; width: 16px; margin-right: 5px; vertical-align: 3px; border-top: 2px solid var(--dim); }
.card h3 small.key.dots::before { border-top-style: dotted; border-top-width: 4px; }
svg { display: block; width: 100%; overflow: visible; }
svg text { fill: var(--dim); font-size: 11px; }
svg .grid-line { stroke: var(--grid); }
svg .axis { stroke: var(--line); }
svg .cross { stroke: var(--faint); stroke-dasharray: 3 3; }
svg .brush { fill: var(--accent); opacity: .14; }
.plot { cursor: crosshair; touch-action: pan-y; }
#tip { position: fixed; z-index: 9; pointer-events: none; background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 7px 10px;
  box-shadow: 0 6px 20px rgba(0,0,0,.16); font-size: 12px; white-space: nowrap; display: none; }
#tip div { display: flex; align-items: center; gap: 7px; }
#tip i { width: 10px; height: 3px; border-radius: 2px; }
#tip b { margin-left: auto; padding-left: 14px; font-weight: 600; }
#tip .at { color: var(--dim); }
.heat { position: relative; }
.heat canvas { display: block; width: 100%; image-rendering: pixelated; border-radius: 3px; cursor: crosshair; background: var(--mid); }
.heat .ticks { display: flex; justify-content: space-between; color: var(--dim); font-size: 11px; margin: 3px 0 2px; }
.scale { display: inline-flex; align-items: center; gap: 8px; color: var(--dim); font-size: 12px; font-weight: 400; }
.scale i { display: inline-block; width: 150px; height: 9px; border-radius: 3px; }
.scroll { overflow-x: auto; margin-bottom: 14px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: 6px 12px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 2px; color: var(--dim); font-weight: 400; }
tr:last-child td { border-bottom: 0; }
th { font-weight: 600; }
th i, p i { display: inline-block; width: 12px; height: 3px; border-radius: 2px; margin-right: 7px; vertical-align: middle; }
details { margin-top: 12px; }
summary { cursor: pointer; color: var(--dim); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; overflow: auto; max-height: 480px; font-size: 12px; line-height: 1.45; }
footer { color: var(--faint); font-size: 12px; margin-top: 30px; }
@media print { .bar, button { display: none; } .card { break-inside: avoid; } }
)css";
}

std::string_view page_body() {
  return R"html(<main>
<header><h1 id="title"></h1><span class="what" id="what"></span></header>
<div class="tiles" id="tiles"></div>
<div class="bar" id="bar"></div>
<div class="grid" id="charts"></div>
<div id="heat"></div>
<div id="more"></div>
<div id="tables"></div>
<footer>metrics.jsonl of each run is the truth; curves are thinned for the screen (means, with the range behind them). Drag to zoom, double-click to see all.</footer>
</main>
<div id="tip" role="status"></div>
<noscript>This report draws its charts with a script inside this file.</noscript>
)html";
}

}  // namespace hadal::report
