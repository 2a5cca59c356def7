// What the parts of lessons share: controls, sentences, and axes of hand-drawn charts.

/** A drop-down list; `options` are [value, text] pairs. */
function choice({ label, options, value, onchange }) {
  const list = keepKeys(h("select", { class: "ptq-select", "aria-label": label },
    options.map(([name, text]) => h("option", { value: name }, text))));
  list.value = value;
  list.addEventListener("change", () => onchange(list.value));
  const row = h("label", { class: "ptq-choice" }, h("span", {}, label), list);
  row.input = list;
  return row;
}

/** A box to tick. */
function tick({ label, value, onchange }) {
  const box = keepKeys(h("input", { type: "checkbox", "aria-label": label }));
  box.checked = value;
  box.addEventListener("change", () => onchange(box.checked));
  return h("label", { class: "ptq-choice" }, box, h("span", {}, label));
}

/** Ask the kernel for another view, one question at a time; of those that come meanwhile only the last is asked. */
function asker(ask) {
  let busy = false;
  let next = null;
  const send = (question) => { busy = true; ask(question); };
  return {
    ask: (question) => { if (busy) next = question; else send(question); },
    answered: () => {
      busy = false;
      if (next === null) return;
      const question = next;
      next = null;
      send(question);
    },
  };
}

/** Questions by way of the traits `choice` and `view`; the serial number makes every answer a change. */
function traitAsker(model) {
  let serial = 0;
  return asker((question) => {
    model.set("choice", { ...question, serial: ++serial });
    model.save_changes();
  });
}

/** Put sentences into an element that screen readers follow. */
function tell(element, sentences) {
  element.replaceChildren(...sentences.filter(Boolean).map((text) => h("p", {}, text)));
}

/** Four significant digits, without an exponent where it can be helped. */
function digits(value) {
  if (value === 0) return "0";
  if (value < 0) return `−${digits(-value)}`;
  if (value < 1e-4 || value >= 1e5) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

/** A share as percent. */
function percent(share) {
  if (share === 0) return "0 %";
  return share < 1e-6 ? `${(share * 100).toExponential(1)} %` : `${Number((share * 100).toPrecision(2))} %`;
}

/** Map an interval to another. */
function linear(from, to, start, end) {
  const unit = (end - start) / (to - from || 1);
  return (value) => start + (value - from) * unit;
}

/** About `count` round numbers within an interval. */
function rounds(from, to, count = 5) {
  const raw = (to - from || 1) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
  const first = Math.ceil(from / step - 1e-9);
  const last = Math.floor(to / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

/** An empty chart; `label` is what a screen reader says about it. */
function chart(width, height) {
  return s("svg", { viewBox: `0 0 ${width} ${height}`, class: "ptq-chart", role: "img", width });
}

function text(x, y, words, attributes = {}) {
  return s("text", { x, y, ...attributes }, words);
}

/** A horizontal axis with marks at round numbers. */
function axisX(scale, from, to, y, title = "") {
  const marks = rounds(from, to, 8);
  return s("g", { class: "ptq-axis" },
    s("path", { d: `M${scale(from)} ${y}H${scale(to)}` }),
    ...marks.map((value) => s("path", { d: `M${scale(value)} ${y}v4` })),
    ...marks.map((value) => text(scale(value), y + 16, digits(value), { "text-anchor": "middle" })),
    text((scale(from) + scale(to)) / 2, y + 32, title, { "text-anchor": "middle" }));
}

/** A vertical axis for the given marks. */
function axisY(scale, marks, x, write = digits) {
  return s("g", { class: "ptq-axis" },
    ...marks.map((value) => s("path", { class: "ptq-rule", d: `M${x} ${scale(value)}h640` })),
    ...marks.map((value) => text(x - 6, scale(value) + 4, write(value), { "text-anchor": "end" })));
}

/** A polyline through [x, y] points. */
function trace(points, attributes) {
  return s("polyline", { points: points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" "), fill: "none", ...attributes });
}

/** Let a pointer drag over a chart; `move` gets the place in the chart's own units. */
function draggable(svg, move) {
  const place = (event) => {
    const box = svg.getBoundingClientRect();
    move(((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width);
  };
  svg.addEventListener("pointerdown", (event) => {
    svg.setPointerCapture(event.pointerId);
    place(event);
  });
  svg.addEventListener("pointermove", (event) => { if (svg.hasPointerCapture(event.pointerId)) place(event); });
  svg.classList.add("ptq-drag");
}

/** A table with a header row; all columns but the first are numbers. */
function table(headers, rows) {
  return h("table", { class: "ptq-table" },
    h("thead", {}, h("tr", {}, headers.map((word) => h("th", { scope: "col" }, word)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, at) => (at ? h("td", {}, cell) : h("th", { scope: "row" }, cell)))))));
}

/** Frame of a lesson: heading, controls, charts, and the words that follow the controls. */
function lesson(title, controls, charts) {
  const heading = h("h3", {}, title);
  const words = h("div", { class: "ptq-words", role: "status", "aria-live": "polite" });
  const fault = h("p", { class: "ptq-fault", role: "alert" });
  const root = h("div", { class: "ptq ptq-lesson", role: "group", "aria-label": title },
    heading, h("div", { class: "ptq-controls" }, controls), fault, charts, words);
  return { root, heading, words, fault };
}
