// The tensor inspector: how values are spread, where the range is cut, and what each threshold costs.

const LEFT = 64;
const RIGHT = 696;

function drawValues(svg, view, cut) {
  const x = linear(view.low, view.high, LEFT, RIGHT);
  const top = Math.max(1, ...view.counts);
  const y = linear(0, Math.log10(1 + top), 150, 20);
  const width = (view.high - view.low) / view.counts.length;
  const step = (cut.high - cut.low) / (2 ** view.bits - 1);
  const bars = view.counts.map((count, at) => {
    const start = view.low + at * width;
    const kept = start + width / 2 >= cut.low && start + width / 2 <= cut.high;
    return count === 0 ? null : s("rect", { class: kept ? "ptq-fill-accent" : "ptq-fill-second", x: x(start), y: y(Math.log10(1 + count)),
      width: Math.max(0.8, x(start + width) - x(start) - 0.6), height: 150 - y(Math.log10(1 + count)) });
  }).filter(Boolean);
  const grid = view.bits > 6 ? "" : Array.from({ length: 2 ** view.bits }, (_, code) => `M${x(cut.low + code * step).toFixed(1)} 152v7`).join("");
  svg.replaceChildren(
    ...bars,
    s("path", { class: "ptq-ink", d: grid }),
    ...[cut.low, cut.high].map((end) => s("path", { class: "ptq-bad", "stroke-width": 2, "stroke-dasharray": "5 3", d: `M${x(end)} 14V160` })),
    axisX(x, view.low, view.high, 162, view.bits > 6 ? "value (the grid is too fine to draw)" : "value; the marks above the axis are the grid"),
    text(LEFT - 6, 26, `${top}`, { "text-anchor": "end", class: "ptq-quiet" }),
    text(LEFT - 6, 150, "0", { "text-anchor": "end", class: "ptq-quiet" }),
    text(LEFT, 12, "how many values (logarithmic); blue is kept, orange is cut off", { class: "ptq-quiet" }));
  svg.setAttribute("aria-label", `Histogram from ${digits(view.low)} to ${digits(view.high)}, kept from ${digits(cut.low)} to ${digits(cut.high)}.`);
}

function drawErrors(svg, view, at) {
  const cuts = view.thresholds;
  const x = linear(0, cuts.at(-1).limit, LEFT, RIGHT);
  const totals = cuts.map((cut) => cut.clipping + cut.rounding);
  const floor = Math.min(...totals.filter((value) => value > 0), 1) / 30;
  const log = (value) => Math.log10(Math.max(value, floor));
  const y = linear(log(floor), Math.max(0, ...totals.map(log)), 150, 24);
  const line = (name) => cuts.filter((cut) => cut[name] > floor).map((cut) => [x(cut.limit), y(log(cut[name]))]);
  const marks = Array.from({ length: Math.ceil(-Math.log10(floor)) }, (_, power) => -power).filter((power, index) => index % 2 === 0);
  const best = cuts[view.best];
  svg.replaceChildren(
    axisY((power) => y(power), marks, LEFT, (power) => percent(10 ** power)),
    axisX(x, 0, cuts.at(-1).limit, 152, "threshold"),
    trace(cuts.map((cut, index) => [x(cut.limit), y(log(totals[index]))]), { class: "ptq-ink", "stroke-width": 5, "stroke-opacity": 0.3 }),
    trace(line("clipping"), { class: "ptq-second", "stroke-width": 2, "stroke-dasharray": "7 4" }),
    trace(line("rounding"), { class: "ptq-accent", "stroke-width": 2, "stroke-dasharray": "2 3" }),
    s("path", { class: "ptq-bad", "stroke-width": 2, "stroke-dasharray": "5 3", d: `M${x(cuts[at].limit)} 18V152` }),
    s("circle", { class: "ptq-fill-good", cx: x(best.limit), cy: y(log(totals[view.best])), r: 6 }),
    s("rect", { class: "ptq-fill-second", x: x(view.chosen.limit) - 5, y: y(log(view.chosen.clipping + view.chosen.rounding)) - 5, width: 10, height: 10 }),
    text(LEFT, 12, "error, share of the signal’s power: – – clipping, ···· rounding, broad: both; ● best, ■ in use", { class: "ptq-quiet" }));
  svg.setAttribute("aria-label", `Clipping and rounding error over the threshold; the best is ${digits(best.limit)}, in use is ${digits(view.chosen.limit)}.`);
}

function drawSpans(svg, view) {
  const spans = view.spans;
  if (!spans) { svg.replaceChildren(); svg.style.display = "none"; return; }
  svg.style.display = "";
  const low = Math.min(0, ...spans.groups.map(([, , bottom]) => bottom));
  const high = Math.max(0, ...spans.groups.map(([, , , top]) => top));
  const y = linear(low, high, 120, 20);
  const step = (RIGHT - LEFT) / spans.groups.length;
  svg.replaceChildren(
    axisY(y, rounds(low, high, 4), LEFT),
    ...spans.groups.map(([first, last, bottom, top], at) => s("rect", {
      class: first <= spans.widest && spans.widest <= last ? "ptq-fill-second" : "ptq-fill-accent",
      x: LEFT + at * step + step * 0.15, y: y(top), width: Math.max(1, step * 0.7), height: Math.max(1, y(bottom) - y(top)) },
    s("title", {}, `channel ${first === last ? first : `${first} to ${last}`}: ${digits(bottom)} to ${digits(top)}`))),
    text(LEFT, 12, `range of each channel${spans.groups.length < spans.count ? " (neighbours share a bar)" : ""}; orange: channel ${spans.widest} sets the range`, { class: "ptq-quiet" }),
    text(LEFT, 136, "channel 0", { class: "ptq-quiet" }),
    text(RIGHT, 136, `channel ${spans.count - 1}`, { class: "ptq-quiet", "text-anchor": "end" }));
  svg.setAttribute("aria-label", `Ranges of ${spans.count} channels; channel ${spans.widest} is the widest.`);
}

function atThreshold(view, at) {
  const cut = view.thresholds[at];
  const total = cut.clipping + cut.rounding;
  const noise = total > 0 ? `${(-10 * Math.log10(total)).toFixed(1)} dB` : "exact";
  return `Threshold ${digits(cut.limit)}: clipping ${percent(cut.clipping)} + rounding ${percent(cut.rounding)} = ${percent(total)} of the power, SQNR ${noise}.`;
}

function nearest(view) {
  const last = view.thresholds.length - 1;
  return Math.min(last, Math.max(0, Math.round((view.chosen.limit / view.thresholds[last].limit) * (last + 1)) - 1));
}

function render({ model, el }) {
  const [values, errors, spans] = [chart(720, 200), chart(720, 190), chart(720, 144)];
  const rivals = h("div", {});
  const questions = traitAsker(model);
  const first = model.get("view");
  const state = { tensor: first.tensor, bits: first.bits, channel: -1 };
  let [at, drawn] = [nearest(first), null];
  const ask = () => questions.ask({ ...state });
  const limit = (index) => digits(model.get("view").thresholds?.[index]?.limit ?? 0);
  const threshold = slider({ label: "threshold", min: 0, max: first.thresholds.length - 1, value: at, text: limit, oninput: (index) => { at = index; show(); } });
  const channel = slider({ label: "channel", min: -1, max: Math.max(0, first.channels - 1), value: -1, text: (index) => (index < 0 ? "all" : String(index)),
    oninput: (index) => { state.channel = index; ask(); } });
  const bits = slider({ label: "bits", min: 2, max: 8, value: state.bits, oninput: (value) => { state.bits = value; ask(); } });
  const toBest = button("best threshold", () => { at = model.get("view").best; threshold.set(at); show(); });
  const toChosen = button("range in use", () => { at = nearest(model.get("view")); threshold.set(at); show(); });
  const part = lesson(first.headline, [
    choice({ label: "tensor", options: model.get("layers"), value: first.tensor, onchange: (tensor) => { Object.assign(state, { tensor, channel: -1, bits: null }); ask(); } }),
    bits, threshold, toBest, toChosen, channel,
  ], [values, errors]);
  part.root.append(spans, rivals); // below the words, which belong to the two charts
  function show() {
    const view = model.get("view");
    drawValues(values, view, view.thresholds[at]);
    drawErrors(errors, view, at);
    tell(part.words, [atThreshold(view, at), ...view.sentences]);
  }
  function draw() {
    const view = model.get("view");
    part.fault.textContent = view.error ?? "";
    if (!view.error) {
      if (view.tensor !== drawn) at = nearest(view);
      drawn = view.tensor;
      Object.assign(state, { bits: view.bits });
      bits.set(view.bits);
      threshold.set(at);
      channel.input.max = Math.max(0, view.channels - 1);
      channel.set(view.channel);
      channel.hidden = view.channels < 2;
      part.heading.textContent = view.headline;
      drawSpans(spans, view);
      rivals.replaceChildren(table(view.headers, view.rows));
      show();
    }
    questions.answered();
  }
  draggable(values, (x) => {
    const view = model.get("view");
    const limitAt = Math.abs(linear(LEFT, RIGHT, view.low, view.high)(x));
    const last = view.thresholds.length - 1;
    at = Math.min(last, Math.max(0, Math.round((limitAt / view.thresholds[last].limit) * (last + 1)) - 1));
    threshold.set(at);
    show();
  });
  el.replaceChildren(part.root);
  hideWhatStays(el);
  return follow(model, ["view"], draw);
}

export default { render };
