// Two weights: the first is rounded, the second makes up for its error. All arithmetic is the kernel's.

const UNIT = 66;
const EDGE = 0.65;

function oval(view, at, [x, y], attributes) {
  const [along, against] = view.radii[at];
  return s("ellipse", { cx: x, cy: y, rx: along * UNIT, ry: against * UNIT, transform: `rotate(-45 ${x} ${y})`, ...attributes });
}

function legend(view) {
  const key = (at, mark, words) => s("g", { transform: `translate(360 ${36 + 28 * at})` }, mark, text(26, 0, words));
  const dash = (name, more = {}) => s("path", { class: name, "stroke-width": 2.5, d: "M0 -4H16", ...more });
  return [
    key(0, s("circle", { class: "ptq-fill-second", cx: 8, cy: -4, r: 7 }), "the float weights"),
    key(1, dash("ptq-second"), "1. the first is rounded, 2. the second makes up for it"),
    key(2, dash("ptq-accent"), "3. the second is rounded, from where it is now"),
    key(3, s("rect", { class: "ptq-ink", fill: "none", "stroke-width": 2, x: 0, y: -12, width: 16, height: 16 }), `each to its nearest step: error ${view.errors[0].toFixed(3)}`),
    key(4, s("rect", { class: "ptq-fill-accent", x: 2, y: -10, width: 12, height: 12 }), `the error handed on: error ${view.errors[1].toFixed(3)}`),
    key(5, dash("ptq-ink", { "stroke-width": 1.2, "stroke-dasharray": "5 4" }), "everywhere on an ellipse the output is off by as much:"),
    text(386, 193, "along it two errors cancel, across it they add up"),
  ];
}

function drawPair(svg, view) {
  const side = (view.top + 2 * EDGE) * UNIT;
  const place = (first, second) => [(first + EDGE) * UNIT, side - (second + EDGE) * UNIT];
  const codes = Array.from({ length: view.top + 1 }, (_, code) => code);
  const [weights, nearest, handed] = [place(view.first, view.second), place(...view.nearest), place(...view.handed)];
  const moved = place(view.nearest[0], view.moved);
  const plane = s("svg", { x: 40, y: 8, width: side, height: side },
    oval(view, 0, weights, { class: "ptq-ink", fill: "none", "stroke-dasharray": "5 4" }),
    oval(view, 1, weights, { class: "ptq-accent", fill: "none", "stroke-width": 1.5 }),
    ...codes.flatMap((one) => codes.map((two) => place(one, two))).map(([cx, cy]) => s("circle", { cx, cy, r: 3, fill: "currentColor" })),
    s("path", { class: "ptq-second", fill: "none", "stroke-width": 2.5, d: `M${weights}H${moved[0]}V${moved[1]}` }),
    s("path", { class: "ptq-accent", fill: "none", "stroke-width": 2.5, d: `M${moved}V${handed[1]}` }),
    s("rect", { class: "ptq-ink", fill: "none", "stroke-width": 2, x: nearest[0] - 8, y: nearest[1] - 8, width: 16, height: 16 }),
    s("rect", { class: "ptq-fill-accent", x: handed[0] - 6, y: handed[1] - 6, width: 12, height: 12 }),
    s("circle", { class: "ptq-fill-second", cx: moved[0], cy: moved[1], r: 4 }),
    s("circle", { class: "ptq-fill-second", cx: weights[0], cy: weights[1], r: 7 }));
  svg.replaceChildren(
    plane,
    s("g", { class: "ptq-axis" },
      s("path", { d: `M40 8V${side + 8}H${side + 40}V8Z` }),
      ...codes.map((code) => text(40 + (code + EDGE) * UNIT, side + 24, code, { "text-anchor": "middle" })),
      ...codes.map((code) => text(32, side + 12 - (code + EDGE) * UNIT, code, { "text-anchor": "end" })),
      text(40 + side / 2, side + 41, "first weight, in steps", { "text-anchor": "middle" }),
      text(13, 8 + side / 2, "second weight", { "text-anchor": "middle", transform: `rotate(-90 13 ${8 + side / 2})` })),
    ...legend(view));
  svg.setAttribute("aria-label", `Two weights: ${view.nearest.join(" and ")} by rounding each, ${view.handed.join(" and ")} by handing the error on.`);
}

function render({ model, el }) {
  const svg = chart(720, 336);
  const questions = traitAsker(model);
  const { first, second, correlation } = model.get("view");
  const state = { first, second, correlation };
  const two = (value) => value.toFixed(2);
  const control = (name, label, min, max) => slider({
    label, min, max, step: name === "correlation" ? 0.01 : 0.05, value: state[name], text: two,
    oninput: (value) => { state[name] = value; questions.ask({ ...state }); },
  });
  const part = lesson("GPTQ on two weights", [
    control("first", "first weight", 0, 3),
    control("second", "second weight", 0, 3),
    control("correlation", "correlation of inputs", -0.99, 0.99),
  ], [svg]);
  function draw() {
    const view = model.get("view");
    part.fault.textContent = view.error ?? "";
    if (!view.error) {
      drawPair(svg, view);
      tell(part.words, view.sentences);
    }
    return questions.answered();
  }
  el.replaceChildren(part.root);
  hideWhatStays(el);
  return follow(model, ["view"], draw);
}

export default { render };
