// One number on one grid. The arithmetic is numerics.affine's, in the same precision; a test holds them equal.

const REACH = 3;

function roundHalfAway(value) {
  return Math.trunc(value + (value < 0 ? -0.5 : 0.5));
}

function roundHalfEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest === 0.5) return below % 2 === 0 ? below : below + 1;
  return rest < 0.5 ? below : below + 1;
}

/** Scale, zero point and codes of the grid that covers low..high; as choose_params. */
export function gridOf(low, high, bits, symmetric) {
  const qmin = -(2 ** (bits - 1)) + (symmetric && bits > 1 ? 1 : 0);
  const qmax = 2 ** (bits - 1) - 1;
  let [bottom, top] = [low, Math.max(high, low + 1e-10)];
  if (symmetric) {
    top = Math.max(Math.abs(bottom), Math.abs(top));
    bottom = -top;
  }
  [bottom, top] = [Math.min(bottom, 0), Math.max(top, 0)];
  const steps = qmax - qmin;
  const step = (top - bottom) / steps;
  const belowZero = roundHalfAway(-bottom / step);
  const nudgedLow = -belowZero * step;
  const scale = ((steps - belowZero) * step - nudgedLow) / steps;
  return { scale, zeroPoint: roundHalfAway(qmin - nudgedLow / scale), qmin, qmax };
}

/** The code of a value; as quantize_array, in float32. */
export function codeOf(value, grid) {
  const code = roundHalfEven(Math.fround(Math.fround(value) / Math.fround(grid.scale))) + grid.zeroPoint;
  return Math.min(Math.max(code, grid.qmin), grid.qmax);
}

/** The value of a code; as dequantize_array, in float32. */
export function valueOf(code, grid) {
  return Math.fround((code - grid.zeroPoint) * Math.fround(grid.scale));
}

function drawLine(svg, state, grid) {
  const x = linear(-REACH, REACH, 24, 696);
  const codes = Array.from({ length: grid.qmax - grid.qmin + 1 }, (_, index) => grid.qmin + index);
  const back = valueOf(codeOf(state.value, grid), grid);
  const [first, last] = [valueOf(grid.qmin, grid), valueOf(grid.qmax, grid)];
  const few = codes.length <= 16;
  const kind = Math.abs(back - state.value) > grid.scale * 0.5001 ? "ptq-bad" : "ptq-good";
  svg.replaceChildren(
    s("rect", { class: "ptq-fill-panel", x: x(first), y: 66, width: Math.max(1, x(last) - x(first)), height: 34 }),
    axisX(x, -REACH, REACH, 120, "real value; above it the codes, the zero point in bold"),
    s("path", { class: "ptq-ink", "stroke-opacity": few ? 1 : 0.45, d: codes.map((code) => `M${x(valueOf(code, grid)).toFixed(1)} 66v34`).join("") }),
    s("path", { class: "ptq-second", "stroke-width": 2, d: `M${x(0)} 60v46` }),
    ...(few ? codes : [grid.qmin, grid.zeroPoint, grid.qmax]).map((code) =>
      text(x(valueOf(code, grid)), 114, digits(code), { "text-anchor": "middle", class: code === grid.zeroPoint ? "ptq-now" : "ptq-quiet" })),
    s("path", { class: kind, "stroke-width": 3, d: `M${x(state.value)} 48H${x(back)}` }),
    s("path", { class: "ptq-accent", "stroke-width": 2, d: `M${x(state.value)} 30V66` }),
    s("circle", { class: "ptq-fill-accent", cx: x(state.value), cy: 30, r: 8 }),
    s("rect", { class: "ptq-fill-second", x: x(back) - 5, y: 43, width: 10, height: 10 }),
    text(x(state.value), 14, `value ${digits(state.value)}`, { "text-anchor": anchor(state.value) }),
  );
  svg.setAttribute("aria-label", `The value ${digits(state.value)} and the grid from ${digits(first)} to ${digits(last)}; it becomes ${digits(back)}.`);
}

function anchor(value) {
  if (value > 2.4) return "end";
  return value < -2.4 ? "start" : "middle";
}

function sentences(state, grid) {
  const code = codeOf(state.value, grid);
  const back = valueOf(code, grid);
  const error = back - state.value;
  const isClipped = Math.abs(error) > grid.scale * 0.5001;
  const steps = state.value / grid.scale;
  return [
    `Scale ${digits(grid.scale)} real units per step, zero point ${digits(grid.zeroPoint)}, codes ${digits(grid.qmin)} to ${digits(grid.qmax)}.`,
    `${digits(state.value)} ÷ ${digits(grid.scale)} = ${digits(Number(steps.toFixed(3)))} steps; rounded ${digits(roundHalfEven(Math.fround(steps)))}, plus zero point ${digits(grid.zeroPoint)}` +
      `${isClipped ? ", clipped" : ""}: code ${digits(code)}.`,
    `Back: (${digits(code)} − ${digits(grid.zeroPoint)}) × ${digits(grid.scale)} = ${digits(back)}. Error ${digits(Number(error.toPrecision(4)))}: ` +
      (isClipped ? "clipping, the value lies outside of the grid." : `rounding, at most half a step (${digits(grid.scale / 2)}).`),
    state.symmetric && state.bits === 1 ? "Of two symmetric levels one has to be zero, so one bit needs an asymmetric grid." : "",
  ];
}

function render({ model, el }) {
  const state = { ...model.get("view") };
  const svg = chart(720, 160);
  const draw = () => {
    const grid = gridOf(state.low, state.high, state.bits, state.symmetric);
    drawLine(svg, state, grid);
    tell(part.words, sentences(state, grid));
  };
  const change = (name) => (value) => { state[name] = value; draw(); };
  const two = (value) => value.toFixed(2);
  const value = slider({ label: "value", min: -REACH, max: REACH, step: 0.01, value: state.value, text: two, oninput: change("value") });
  const part = lesson("A number on a grid", [
    value,
    slider({ label: "bits", min: 1, max: 8, value: state.bits, oninput: change("bits") }),
    slider({ label: "low", min: -REACH, max: 0, step: 0.05, value: state.low, text: two, oninput: change("low") }),
    slider({ label: "high", min: 0.05, max: REACH, step: 0.05, value: state.high, text: two, oninput: change("high") }),
    tick({ label: "symmetric", value: state.symmetric, onchange: change("symmetric") }),
  ], [svg]);
  draggable(svg, (x) => {
    state.value = Math.min(REACH, Math.max(-REACH, Math.round(linear(24, 696, -REACH, REACH)(x) * 100) / 100));
    value.set(state.value);
    draw();
  });
  draw();
  el.replaceChildren(part.root);
  hideWhatStays(el);
}

export default { render };
