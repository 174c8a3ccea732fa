#include "report/page_assets.h"

namespace hadal::report {

std::string_view page_script_charts() {
  return R"js(
'use strict';
const DATA = JSON.parse(document.getElementById('data').textContent);
const COLOURS = {
  light: ['#2563c9', '#d9680b', '#11866a', '#b8318f', '#6d4fd0', '#a07a00', '#0e7fa6', '#c2353b'],
  dark: ['#6ea8ff', '#ff9d4d', '#3fc7a0', '#f07ac8', '#a893ff', '#e0b73a', '#4cc3ea', '#ff7b80']};
const view = { x: 'step', smooth: 0.9, log: false, hidden: new Set(), zoom: null };
const theme = () => document.documentElement.dataset.theme;
const colour = run => COLOURS[theme()][run % COLOURS.light.length];
const shown = () => DATA.runs.map((run, index) => index).filter(index => !view.hidden.has(index));
const escapeText = text => String(text).replace(/[&<>"]/g, c => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);
const finite = v => typeof v === 'number' && isFinite(v);

function short(v) {
  if (!finite(v)) return '–';
  const a = Math.abs(v);
  if (a === 0) return '0';
  if (a >= 1e9) return +(v / 1e9).toPrecision(4) + 'G';
  if (a >= 1e6) return +(v / 1e6).toPrecision(4) + 'M';
  if (a >= 1e4) return +(v / 1e3).toPrecision(4) + 'k';
  if (a < 1e-3) return v.toExponential(2).replace('e-0', 'e-');
  return String(+v.toPrecision(4));
}
const percent = v => finite(v) ? (100 * v).toFixed(1) + ' %' : '–';
function xText(v) {
  if (view.x !== 'hours') return (view.x === 'step' ? 'step ' + Math.round(v) : short(v) + ' tokens');
  const seconds = Math.round(v * 3600), pad = n => String(n).padStart(2, '0');
  return seconds < 3600 ? `${Math.floor(seconds / 60)}:${pad(seconds % 60)} min` : `${Math.floor(seconds / 3600)}:${pad(Math.floor(seconds % 3600 / 60))} h`;
}

function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find(f => power * f >= rough * 0.999) || 10), out = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-9; t += step) out.push(Math.abs(t) < step * 1e-9 ? 0 : t);
  return out;
}
function logTicks(low, high) {
  for (const factors of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7]]) {
    const out = [];
    for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++)
      for (const f of factors) if (f * 10 ** p >= low && f * 10 ** p <= high) out.push(f * 10 ** p);
    if (out.length > 3) return out;
  }
  return ticks(low, high, 4);
}
// Exponential mean from the left and from the right, averaged: no lag behind a trend.
function smoothed(values, keep) {
  const pass = list => {
    let sum = 0, weight = 0;
    return list.map(v => {
      if (!finite(v)) return null;
      sum = keep * sum + v;
      weight = keep * weight + 1;
      return [sum / weight, weight];
    });
  };
  const left = pass(values), right = pass([...values].reverse()).reverse();
  return left.map((l, i) => l && (l[0] * l[1] + right[i][0] * right[i][1]) / (l[1] + right[i][1]));
}
function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) if (finite(v)) { if (v < low) low = v; if (v > high) high = v; }
  return [low, high];
}
function quantiles(values, share) {
  const sorted = values.filter(finite).sort((a, b) => a - b);
  if (!sorted.length) return [Infinity, -Infinity];
  const at = q => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
  return [at(share), at(1 - share)];
}
function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle + 1; else high = middle;
  }
  return low > 0 && x - xs[low - 1] < xs[low] - x ? low - 1 : low;
}

const tip = document.getElementById('tip');
function showTip(event, html) {
  tip.innerHTML = html;
  tip.style.display = 'block';
  const box = tip.getBoundingClientRect(), gap = 16;
  const left = event.clientX + gap + box.width > innerWidth ? event.clientX - gap - box.width : event.clientX + gap;
  tip.style.left = Math.max(4, left) + 'px';
  tip.style.top = Math.max(4, Math.min(event.clientY - box.height / 2, innerHeight - box.height - 4)) + 'px';
}
const hideTip = () => { tip.style.display = 'none'; };

// spec: title, note, lines(run index) -> [{name, x, y, lo, hi, dots, smooth}], zero, log, format, refs() -> [{y, text}], height
class LineChart {
  constructor(host, spec) {
    this.spec = spec;
    this.card = document.createElement('section');
    this.card.className = 'card' + (spec.wide ? ' wide' : '');
    this.card.innerHTML = `<h3>${escapeText(spec.title)}${(spec.keys || []).map(k => `<small class="key ${k.dots ? 'dots' : ''}">${escapeText(k.name)}</small>`).join('')}` +
      `${spec.note ? `<small>${escapeText(spec.note)}</small>` : ''}</h3><div class="plot"></div>`;
    this.plot = this.card.lastChild;
    host.append(this.card);
    this.plot.addEventListener('pointermove', event => this.move(event));
    this.plot.addEventListener('pointerleave', () => { hideTip(); crossAll(null); });
    this.plot.addEventListener('pointerdown', event => {
      if (event.button !== 0 || event.pointerType === 'touch') return;
      this.brush = this.value(event);
      this.plot.setPointerCapture(event.pointerId);
    });
    this.plot.addEventListener('pointerup', event => {
      const from = this.brush, to = this.value(event);
      this.brush = undefined;
      if (from === undefined || Math.abs(this.place(from) - this.place(to)) < 6) { this.cross(null); return; }
      view.zoom = [Math.min(from, to), Math.max(from, to)];
      drawAll();
    });
    this.plot.addEventListener('dblclick', () => { view.zoom = null; drawAll(); });
  }

  // Curves that are on the screen: x, the shown y, the raw y behind it.
  curves() {
    const out = [];
    for (const run of shown()) for (const line of this.spec.lines(run)) {
      const even = line.dots || !line.smooth || view.smooth === 0;
      out.push({ ...line, run, raw: even ? null : line.y, y: even ? line.y : smoothed(line.y, view.smooth) });
    }
    return out;
  }

  draw() {
    const width = Math.max(240, this.plot.clientWidth), height = this.spec.height || 210;
    const left = 52, right = 12, top = 8, bottom = 24, log = this.spec.log && view.log;
    this.lines = this.curves();
    const xs = extent(this.lines.flatMap(line => line.x));
    this.domain = view.zoom || (finite(xs[0]) ? xs : [0, 1]);
    const [x0, x1] = this.domain, inside = line => line.x.map(x => x >= x0 && x <= x1);
    const values = [], rough = [];
    for (const line of this.lines) {
      const keep = inside(line);
      values.push(...line.y.filter((_, i) => keep[i]));
      if (line.raw) rough.push(...line.raw.filter((_, i) => keep[i]));
    }
    let [y0, y1] = extent([...values, ...quantiles(rough, 0.005)]);
    const refs = (this.spec.refs ? this.spec.refs() : []);
    for (const ref of refs) { y0 = Math.min(y0, ref.y); y1 = Math.max(y1, ref.y); }
    if (!(y0 <= y1)) { y0 = 0; y1 = 1; }
    if (this.spec.zero) y0 = Math.min(0, y0);
    if (y0 === y1) { const pad = Math.abs(y0) * 0.05 || 1; y0 -= pad; y1 += pad; }
    const useLog = log && y0 > 0;
    if (useLog) { y0 *= 0.98; y1 *= 1.02; } else { const pad = (y1 - y0) * 0.05; y1 += pad; if (!(this.spec.zero && y0 === 0)) y0 -= pad; }
    const ty = v => useLog ? Math.log(v) : v;
    this.box = { left, top, w: width - left - right, h: height - top - bottom };
    this.place = x => left + (x1 > x0 ? (x - x0) / (x1 - x0) : 0.5) * this.box.w;
    this.placeY = y => top + (1 - (ty(y) - ty(y0)) / (ty(y1) - ty(y0))) * this.box.h;
    const format = this.spec.format || short, id = this.id = this.id || 'clip' + (LineChart.count = (LineChart.count || 0) + 1);
    let svg = `<svg viewBox="0 0 ${width} ${height}" height="${height}" role="img" aria-label="${escapeText(this.spec.title)}"><clipPath id="${id}"><rect x="${left}" y="${top - 2}" width="${this.box.w + 2}" height="${this.box.h + 4}"/></clipPath>`;
    for (const t of useLog ? logTicks(y0, y1) : ticks(y0, y1, Math.max(3, Math.round(this.box.h / 45)))) {
      const y = this.placeY(t);
      svg += `<line class="grid-line" x1="${left}" x2="${width - right}" y1="${y}" y2="${y}"/><text x="${left - 7}" y="${y + 4}" text-anchor="end">${format(t)}</text>`;
    }
    for (const t of ticks(x0, x1, Math.max(2, Math.round(this.box.w / 110)))) {
      const text = view.x === 'hours' ? xText(t) : short(t);
      svg += `<text x="${this.place(t)}" y="${height - 6}" text-anchor="middle">${text}</text>`;
    }
    svg += `<line class="axis" x1="${left}" x2="${width - right}" y1="${top + this.box.h}" y2="${top + this.box.h}"/><g clip-path="url(#${id})">`;
    for (const ref of refs) {
      const y = this.placeY(ref.y);
      svg += `<line class="cross" x1="${left}" x2="${width - right}" y1="${y}" y2="${y}"/><text x="${width - right - 4}" y="${y - 5}" text-anchor="end">${escapeText(ref.text)}</text>`;
    }
    for (const line of this.lines) if (line.lo && !line.dots) svg += this.band(line);
    for (const line of this.lines) if (line.raw) svg += this.path(line, line.raw, 1, 0.28);
    for (const line of this.lines) svg += line.dots ? this.dots(line) : this.path(line, line.y, 1.8, 1);
    this.plot.innerHTML = svg + '</g><rect class="brush" display="none"/><g class="marks"></g></svg>';
  }

  path(line, y, width, opacity) {
    let d = '', joined = false;
    for (let i = 0; i < y.length; i++) {
      if (!finite(y[i]) || !finite(line.x[i])) { joined = false; continue; }
      d += `${joined ? 'L' : 'M'}${this.place(line.x[i]).toFixed(1)} ${this.placeY(y[i]).toFixed(1)}`;
      joined = true;
    }
    return `<path d="${d}" fill="none" stroke="${colour(line.run)}" stroke-width="${width}" stroke-linejoin="round" opacity="${opacity}"/>`;
  }
  band(line) {
    const rows = line.x.map((x, i) => i).filter(i => finite(line.lo[i]) && finite(line.hi[i]) && finite(line.x[i]));
    if (rows.length < 2) return '';
    const point = (i, y) => `${this.place(line.x[i]).toFixed(1)} ${this.placeY(y).toFixed(1)}`;
    return `<path d="M${rows.map(i => point(i, line.hi[i])).join('L')}L${rows.reverse().map(i => point(i, line.lo[i])).join('L')}Z" fill="${colour(line.run)}" opacity=".13"/>`;
  }
  dots(line) {
    return `<g stroke-dasharray="1.5 4" stroke-linecap="round">${this.path(line, line.y, 1.8, 0.9)}</g>` + line.y.map((y, i) => finite(y) && finite(line.x[i])
      ? `<circle cx="${this.place(line.x[i]).toFixed(1)}" cy="${this.placeY(y).toFixed(1)}" r="3" fill="${colour(line.run)}" stroke="var(--card)" stroke-width="1"/>` : '').join('');
  }

  value(event) {
    const box = this.plot.getBoundingClientRect(), share = (event.clientX - box.left - this.box.left) / this.box.w;
    return this.domain[0] + Math.max(0, Math.min(1, share)) * (this.domain[1] - this.domain[0]);
  }
  move(event) {
    const x = this.value(event), format = this.spec.tip || this.spec.format || (v => finite(v) ? (Math.abs(v) >= 1e4 ? short(v) : String(+v.toPrecision(5))) : '–');
    crossAll(x);
    if (this.brush !== undefined) {
      const brush = this.plot.querySelector('.brush'), a = this.place(Math.min(this.brush, x)), b = this.place(Math.max(this.brush, x));
      for (const [k, v] of Object.entries({ x: a, width: b - a, y: this.box.top, height: this.box.h, display: 'inline' })) brush.setAttribute(k, v);
    }
    let html = `<div class="at">${xText(x)}</div>`;
    for (const line of this.lines) {
      if (!line.x.length) continue;
      const i = nearest(line.x, x), raw = line.raw && finite(line.raw[i]) ? ` <span class="at">(${format(line.raw[i])})</span>` : '';
      const name = [DATA.runs.length > 1 ? DATA.runs[line.run].name : '', line.name].filter(Boolean).join(' · ');
      html += `<div><i style="background:${colour(line.run)}"></i>${escapeText(name)}<b>${format(line.y[i])}${raw}</b></div>`;
    }
    showTip(event, html);
  }
  cross(x) {
    const marks = this.plot.querySelector('.marks');
    if (!marks) return;
    if (x === null || x < this.domain[0] || x > this.domain[1]) { marks.innerHTML = ''; if (this.brush === undefined) this.plot.querySelector('.brush').setAttribute('display', 'none'); return; }
    let svg = `<line class="cross" x1="${this.place(x)}" x2="${this.place(x)}" y1="${this.box.top}" y2="${this.box.top + this.box.h}"/>`;
    for (const line of this.lines) {
      if (!line.x.length) continue;
      const i = nearest(line.x, x), y = this.placeY(line.y[i]);
      if (finite(line.y[i]) && y >= this.box.top - 1 && y <= this.box.top + this.box.h + 1 && line.x[i] >= this.domain[0] && line.x[i] <= this.domain[1])
        svg += `<circle cx="${this.place(line.x[i])}" cy="${y}" r="4" fill="${colour(line.run)}" stroke="var(--card)" stroke-width="1.5"/>`;
    }
    marks.innerHTML = svg;
  }
}

// Expert loads of one layer: a column a time, a row an expert; colour = share of the tokens over the even share, on a log2 scale.
class HeatMap {
  constructor(host, run, load) {
    this.run = run;
    this.load = load;
    this.card = document.createElement('section');
    this.card.className = 'card heat';
    this.card.innerHTML = `<h3>${escapeText(load.name.replace(/^moe\./, '').replace('_', ' '))}<small>${load.experts} experts</small></h3><canvas></canvas><div class="ticks"></div>`;
    this.canvas = this.card.querySelector('canvas');
    host.append(this.card);
    this.canvas.addEventListener('pointermove', event => this.move(event));
    this.canvas.addEventListener('pointerleave', () => { hideTip(); crossAll(null); });
  }
  draw() {
    const at = this.load.at[view.x];
    this.columns = at.map((x, i) => i).filter(i => !view.zoom || (at[i] >= view.zoom[0] && at[i] <= view.zoom[1]));
    const width = Math.max(1, this.columns.length), height = Math.max(1, this.load.experts);
    this.canvas.width = width;
    this.canvas.height = height;
    this.canvas.style.height = Math.max(64, Math.min(300, height * 12)) + 'px';
    const context = this.canvas.getContext('2d'), image = context.createImageData(width, height);
    this.columns.forEach((column, x) => {
      for (let e = 0; e < height; e++) {
        const [r, g, b] = heatColour((this.load.share[column][e] ?? 0) * this.load.experts);
        image.data.set([r, g, b, 255], 4 * (e * width + x));
      }
    });
    context.putImageData(image, 0, 0);
    const first = at[this.columns[0]], last = at[this.columns[this.columns.length - 1]];
    this.card.querySelector('.ticks').innerHTML = finite(first) ? `<span>${xText(first)}</span><span>${xText(last)}</span>` : '<span>no points here</span>';
  }
  move(event) {
    const box = this.canvas.getBoundingClientRect(), column = this.columns[Math.min(this.columns.length - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * this.columns.length)))];
    if (column === undefined) return;
    const expert = Math.min(this.load.experts - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * this.load.experts)));
    const share = this.load.share[column][expert] ?? 0, x = this.load.at[view.x][column], loads = this.load.share[column].filter(finite);
    crossAll(x);
    showTip(event, `<div class="at">${xText(x)}</div><div>expert ${expert}<b>${percent(share)}</b></div><div>of the even share<b>${(share * this.load.experts).toFixed(2)}×</b></div>` +
      `<div class="at">busiest ${(Math.max(...loads) * this.load.experts).toFixed(2)}×, idlest ${(Math.min(...loads) * this.load.experts).toFixed(2)}×</div>`);
  }
}
const HEAT = { light: [[24, 86, 168], [242, 243, 245], [189, 38, 30]], dark: [[92, 158, 255], [38, 44, 52], [255, 112, 92]] };
function heatColour(ratio) {
  const t = Math.max(-1, Math.min(1, Math.log2(Math.max(ratio, 1e-9)) / 2)), [low, mid, high] = HEAT[theme()], end = t < 0 ? low : high;
  return mid.map((m, i) => Math.round(m + (end[i] - m) * Math.abs(t) ** 0.8));
}
)js";
}

}  // namespace hadal::report
