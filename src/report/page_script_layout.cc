#include "report/page_assets.h"

namespace hadal::report {

std::string_view page_script_layout() {
  return R"js(
// One curve of a run: the dense form, or the points of a figure that few steps have.
function curveOf(run, key, options = {}) {
  const data = DATA.runs[run];
  if (data.dense[key]) return [{ name: options.name || '', x: data.axis[view.x], ...data.dense[key], smooth: options.smooth }];
  if (data.sparse[key]) return [{ name: options.name || '', x: data.sparse[key].at[view.x], y: data.sparse[key].y, dots: true }];
  return [];
}
const has = key => DATA.runs.some(run => run.dense[key] || run.sparse[key]);
function entropyLines() {
  const texts = new Map();
  for (const run of shown()) {
    const points = DATA.runs[run].sparse.val_unigram_entropy || DATA.runs[run].dense.val_unigram_entropy;
    const y = points && points.y.filter(finite).pop();
    if (finite(y)) texts.set(y.toFixed(3), y);
  }
  return [...texts.values()].map(y => ({ y, text: `unigram entropy ${y.toFixed(3)}` }));
}
const perSecond = v => short(v) + '/s';
const CHARTS = [
  { key: 'loss', title: 'Loss', wide: true, height: 330, log: true, refs: entropyLines, note: 'nats per token',
    keys: [{ name: 'training' }, ...(has('val_loss') ? [{ name: 'validation', dots: true }] : [])],
    lines: run => [...curveOf(run, 'loss', { smooth: true, name: 'training' }), ...curveOf(run, 'val_loss', { name: 'validation' })] },
  { key: 'lr', title: 'Learning rate', zero: true },
  { key: 'grad_norm', title: 'Gradient norm', note: 'before clipping', smooth: true, log: true },
  { key: 'tokens_per_s', title: 'Throughput', note: 'tokens per second, all ranks', zero: true, smooth: true, format: perSecond },
  { key: 'mtp_loss', title: 'Multi-token prediction loss', note: 'mean over depths, nats per token', smooth: true, log: true },
  { key: 'max_vio', title: 'MaxVio', note: 'busiest expert over the even load, less 1', zero: true, smooth: true },
  { key: 'val_bits_per_byte', title: 'Bits per byte', note: 'validation' },
  { key: 'val_mtp_acceptance', title: 'MTP acceptance', note: 'drafts that are the main model\u2019s own choice', zero: true, format: percent },
  { key: 'peak_share', title: 'Share of the measured peak', zero: true, smooth: true, format: percent },
  { key: 'balance_loss', title: 'Balance loss', smooth: true },
  { key: 'memory_bytes', title: 'Memory', note: 'per rank', zero: true, format: v => short(v) + 'B' },
  { key: 'step_ms', title: 'Step time', zero: true, smooth: true, format: v => short(v) + ' ms' }];

const drawn = [];
function crossAll(x) { for (const chart of drawn) if (chart.cross) chart.cross(x); }
function drawAll() { for (const chart of drawn) chart.draw(); const reset = document.getElementById('reset'); if (reset) reset.style.visibility = view.zoom ? 'visible' : 'hidden'; }
const make = (tag, properties = {}, ...children) => { const e = Object.assign(document.createElement(tag), properties); e.append(...children); return e; };
function chartOf(host, spec) {
  const lines = spec.lines || (run => curveOf(run, spec.key, { smooth: spec.smooth }));
  if (!DATA.runs.some((_, run) => lines(run).length)) return;
  drawn.push(new LineChart(host, { ...spec, lines }));
}

function segments(entries, current, choose) {
  const group = make('span', { className: 'seg' });
  for (const [value, text] of entries) {
    const button = make('button', { type: 'button', textContent: text });
    button.setAttribute('aria-pressed', value === current);
    button.onclick = () => { for (const other of group.children) other.setAttribute('aria-pressed', other === button); choose(value); };
    group.append(button);
  }
  return group;
}
function setTheme(name) {
  document.documentElement.dataset.theme = name;
  for (const [index, mark] of document.querySelectorAll('[data-run]').entries()) mark.style.background = colour(+mark.dataset.run);
  const scale = document.getElementById('scale');
  if (scale) scale.style.background = `linear-gradient(90deg, ${[0.25, 0.35, 0.5, 0.7, 1, 1.4, 2, 2.8, 4].map(r => `rgb(${heatColour(r)})`).join()})`;
}
const mark = run => { const e = make('i'); e.dataset.run = run; e.style.background = colour(run); return e; };

function controls() {
  const bar = document.getElementById('bar');
  if (DATA.runs.length > 1) {
    const group = make('span', { className: 'runs' });
    DATA.runs.forEach((run, index) => {
      const button = make('button', { type: 'button', className: 'run' }, mark(index), run.name);
      button.setAttribute('aria-pressed', true);
      button.onclick = () => {
        if (view.hidden.has(index)) view.hidden.delete(index); else view.hidden.add(index);
        button.setAttribute('aria-pressed', !view.hidden.has(index));
        drawAll();
      };
      group.append(button);
    });
    bar.append(group);
  }
  const axes = [['step', 'steps'], ['tokens', 'tokens'], ['hours', 'time']].filter(([key]) => DATA.runs.every(run => run.axis[key].some(finite)));
  bar.append(make('label', {}, 'over', segments(axes, 'step', key => { view.x = key; view.zoom = null; drawAll(); })));
  const slider = make('input', { type: 'range', min: 0, max: 100, value: 35 });
  slider.oninput = () => { view.smooth = slider.value === '0' ? 0 : 1 - 10 ** (-slider.value / 40) * 0.5; drawAll(); };
  view.smooth = 1 - 10 ** (-35 / 40) * 0.5;
  bar.append(make('label', {}, 'smoothing', slider));
  bar.append(make('label', {}, 'loss', segments([[false, 'linear'], [true, 'log']], false, on => { view.log = on; drawAll(); })));
  const reset = make('button', { type: 'button', id: 'reset', textContent: 'reset zoom' });
  reset.style.visibility = 'hidden';
  reset.onclick = () => { view.zoom = null; drawAll(); };
  const flip = make('button', { type: 'button', className: 'push', textContent: 'light / dark' });
  flip.onclick = () => { setTheme(theme() === 'dark' ? 'light' : 'dark'); drawAll(); };
  bar.append(reset, flip);
}

function heading() {
  const names = DATA.runs.map(run => run.name);
  document.getElementById('title').textContent = names.length === 1 ? names[0] : `${names.length} runs`;
  document.getElementById('what').textContent = names.length === 1 ? 'Hadal training report' + (DATA.runs[0].state ? ` · ${DATA.runs[0].state}` : '') : 'Hadal training report';
  const tiles = document.getElementById('tiles');
  if (names.length > 1) { tiles.remove(); return; }
  for (const line of DATA.summary) if (line.title !== 'state') tiles.append(make('div', { className: 'tile' }, make('b', { textContent: line.cells[0] }), make('span', { textContent: line.title })));
}

function table(host, title, head, rows) {
  if (title) host.append(make('h2', { textContent: title }));
  const top = make('tr', {}, make('th'), ...head.map(cell => make('th', {}, ...cell)));
  const body = rows.map(([name, cells]) => make('tr', {}, make('td', { textContent: name }), ...cells.map(cell => make('td', { textContent: cell }))));
  host.append(make('div', { className: 'card scroll' }, make('table', {}, top, ...body)));
}
// The canonical YAML of a run as flat keys; lists keep their place as a number.
function settings(text) {
  const out = new Map(), path = [];
  for (const line of text.split('\n')) {
    const match = /^(\s*)(- )?(?:([\w.]+):)?\s*(.*)$/.exec(line);
    if (!match || !line.trim() || line.trim().startsWith('#')) continue;
    const depth = match[1].length + (match[2] ? 2 : 0);
    while (path.length && path[path.length - 1].depth >= (match[2] ? match[1].length : depth)) {
      const last = path[path.length - 1];
      if (match[2] && last.item && last.depth === match[1].length) break;
      path.pop();
    }
    if (match[2]) {
      const last = path[path.length - 1];
      if (last && last.item) last.key = String(+last.key + 1); else path.push({ depth: match[1].length, key: '0', item: true });
    }
    const full = [...path.map(p => p.key), ...(match[3] ? [match[3]] : [])].join('.');
    if (match[4]) out.set(full, match[4]); else if (match[3]) path.push({ depth, key: match[3] });
  }
  return out;
}
function plans(host) {
  host.append(make('h2', { textContent: 'Predicted and measured' }));
  DATA.runs.forEach((run, index) => {
    host.append(make('p', {}, ...(DATA.runs.length > 1 ? [mark(index), ` ${run.name}: `] : []), run.plan.title));
    if (run.plan.rows.length) table(host, '', [['predicted'], ['measured'], ['ratio']], run.plan.rows.map(([name, ...cells]) => [name, cells]));
  });
}
function tables() {
  const host = document.getElementById('tables'), head = () => DATA.runs.map((run, index) => [mark(index), run.name]);
  plans(host);
  if (DATA.runs.length > 1) {
    const summary = make('div');
    table(summary, 'Summary', head(), DATA.summary.map(line => [line.title, line.cells]));
    document.getElementById('charts').before(summary);
    const maps = DATA.runs.map(run => settings(run.config)), keys = [...new Set(maps.flatMap(map => [...map.keys()]))];
    const rows = keys.filter(key => new Set(maps.map(map => map.get(key))).size > 1).map(key => [key, maps.map(map => map.get(key) ?? '–')]);
    if (rows.length) table(host, 'Settings that differ', head(), rows);
  }
  DATA.runs.forEach(run => {
    if (run.config) host.append(make('details', {}, make('summary', { textContent: `Configuration of ${run.name}` }), make('pre', { textContent: run.config })));
  });
}
function heat() {
  const host = document.getElementById('heat');
  if (!DATA.runs.some(run => run.loads.length)) return;
  host.append(make('h2', {}, 'Expert load per layer '));
  host.lastChild.append(make('span', { className: 'scale' }, '¼ of the even share', make('i', { id: 'scale' }), '4 ×'));
  DATA.runs.forEach((run, index) => {
    if (!run.loads.length) return;
    if (DATA.runs.length > 1) host.append(make('p', {}, run.name));
    const grid = make('div', { className: 'grid' }), number = load => +(/\d+/.exec(load.name) || [0])[0];
    host.append(grid);
    for (const load of [...run.loads].sort((a, b) => number(a) - number(b))) drawn.push(new HeatMap(grid, index, load));
  });
}
function more() {
  const known = new Set([...CHARTS.map(chart => chart.key), 'val_loss', 'val_unigram_entropy', 'val_tokens']);
  const keys = [...new Set(DATA.runs.flatMap(run => [...Object.keys(run.dense), ...Object.keys(run.sparse)]))].filter(key => !known.has(key)).sort();
  if (!keys.length) return;
  const grid = make('div', { className: 'grid' });
  document.getElementById('more').append(make('h2', { textContent: 'More figures' }), grid);
  for (const key of keys) chartOf(grid, { key, title: key });
}

document.documentElement.dataset.theme = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
heading();
controls();
for (const spec of CHARTS) chartOf(document.getElementById('charts'), spec);
heat();
more();
tables();
setTheme(theme());
drawAll();
let width = innerWidth;
addEventListener('resize', () => { if (innerWidth !== width) { width = innerWidth; drawAll(); } });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', event => { setTheme(event.matches ? 'dark' : 'light'); drawAll(); });
)js";
}

}  // namespace hadal::report
