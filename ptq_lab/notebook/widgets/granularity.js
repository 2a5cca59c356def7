// One weight, divided per tensor, per channel and per block: ranges of channels, the grid over them, and the errors.

function drawChannels(svg, view, division) {
  const low = Math.min(0, ...view.spans.map(([bottom]) => bottom));
  const high = Math.max(0, ...view.spans.map(([, top]) => top));
  const y = linear(low, high, 190, 16);
  const step = 650 / view.spans.length;
  const levels = 2 ** view.bits;
  const bars = view.spans.map(([bottom, top], at) =>
    s("rect", { class: "ptq-fill-accent", x: 56 + at * step + step * 0.2, y: y(top), width: Math.max(1, step * 0.6), height: Math.max(1, y(bottom) - y(top)) },
      s("title", {}, `channel ${view.channels[at]}: ${digits(bottom)} to ${digits(top)}`)));
  const lines = division.grids.map(([start, size], at) => Array.from({ length: levels }, (_, code) =>
    `M${(56 + at * step).toFixed(1)} ${y(start + code * size).toFixed(1)}h${step.toFixed(1)}`).join("")).join("");
  svg.replaceChildren(
    axisY(y, rounds(low, high, 5), 56),
    ...bars,
    s("path", { class: "ptq-second", "stroke-width": levels > 16 ? 0.4 : 1, "stroke-opacity": levels > 16 ? 0.6 : 0.9, d: levels > 64 ? "" : lines }),
    text(56, 208, `channels ${view.channels[0]} to ${view.channels.at(-1)}; bars: smallest to largest value; ` +
      (levels > 64 ? "the grid is too fine to draw" : `lines: the grid ${division.name}`), { class: "ptq-quiet" }));
  svg.setAttribute("aria-label", `Ranges of ${view.spans.length} channels with the points of one grid ${division.name}.`);
}

function errorTable(view, name) {
  const worst = Math.max(...view.divisions.map((each) => each.error), 1e-12);
  const rows = view.divisions.map((each) => {
    const bar = h("span", { class: "ptq-bar", style: `width:${(120 * each.error) / worst}px` });
    return h("tr", { class: each.name === name ? "ptq-now" : "" }, h("th", { scope: "row" }, each.name),
      ...each.cells.map((cell) => h("td", {}, cell)), h("td", { class: "ptq-left" }, bar));
  });
  return h("table", { class: "ptq-table" },
    h("thead", {}, h("tr", {}, [...view.headers, "error as a bar"].map((word, at) =>
      h("th", { scope: "col", class: at === view.headers.length ? "ptq-left" : null }, word)))), h("tbody", {}, rows));
}

function render({ model, el }) {
  const svg = chart(720, 216);
  const errors = h("div", {});
  const questions = traitAsker(model);
  const state = { layer: model.get("view").layer, bits: model.get("view").bits, shown: 0 };
  const ask = () => questions.ask({ layer: state.layer, bits: state.bits });
  const names = () => model.get("view").divisions.map((each, at) => [String(at), each.name]);
  const shown = choice({ label: "draw the grid", options: names(), value: "0", onchange: (at) => { state.shown = Number(at); draw(); } });
  const part = lesson("Granularity: how many grids for one weight", [
    choice({ label: "layer", options: model.get("layers"), value: state.layer, onchange: (name) => { state.layer = name; ask(); } }),
    slider({ label: "bits", min: 2, max: 8, value: state.bits, oninput: (bits) => { state.bits = bits; ask(); } }),
    shown,
  ], [svg, errors]);
  function draw() {
    const view = model.get("view");
    part.fault.textContent = view.error ?? "";
    if (view.error) return questions.answered();
    const wanted = names();
    state.shown = Math.min(state.shown, wanted.length - 1);
    if (wanted.map(([, name]) => name).join() !== [...shown.input.options].map((option) => option.text).join())
      shown.input.replaceChildren(...wanted.map(([at, name]) => h("option", { value: at }, name)));
    shown.input.value = String(state.shown);
    drawChannels(svg, view, view.divisions[state.shown]);
    errors.replaceChildren(errorTable(view, view.divisions[state.shown].name));
    tell(part.words, [view.headline + ".", ...view.sentences]);
    return questions.answered();
  }
  el.replaceChildren(part.root);
  hideWhatStays(el);
  return follow(model, ["view"], draw);
}

export default { render };
