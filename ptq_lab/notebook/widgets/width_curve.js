// Bits against SQNR: a real weight at every width, and the line of theory.

const STYLES = [["ptq-accent", "●"], ["ptq-second", "■"]];

function drawCurves(svg, view, bits) {
  const x = linear(1, 12, 60, 696);
  const all = view.curves.flatMap((curve) => [...curve.measured, ...curve.expected]);
  const [low, high] = [Math.min(0, ...all), Math.max(...all)];
  const y = linear(low, high, 220, 16);
  const parts = view.curves.flatMap((curve, at) => {
    const colour = STYLES[at][0];
    const points = curve.measured.map((value, index) => [x(index + 1), y(value)]);
    return [
      trace(curve.expected.map((value, index) => [x(index + 1), y(value)]), { class: colour, "stroke-width": 1.5, "stroke-dasharray": "6 4" }),
      trace(points, { class: colour, "stroke-width": 2 }),
      ...points.map(([left, top]) => (at ? s("rect", { class: "ptq-fill-second", x: left - 3.5, y: top - 3.5, width: 7, height: 7 })
        : s("circle", { class: "ptq-fill-accent", cx: left, cy: top, r: 4 }))),
    ];
  });
  svg.replaceChildren(
    axisY(y, rounds(low, high, 6), 60, (value) => `${value} dB`),
    axisX(x, 1, 12, 224, "bits per code"),
    s("path", { class: "ptq-ink", "stroke-dasharray": "2 3", d: `M${x(bits)} 12V224` }),
    ...parts,
    ...view.curves.map((curve, at) => text(440, 180 + 18 * at, `${STYLES[at][1]} ${curve.name}: measured; dashed: theory`)));
  const [whole, channel] = view.curves;
  svg.setAttribute("aria-label", `SQNR over 1 to 12 bits. At ${bits} bits: ${whole.measured[bits - 1].toFixed(1)} dB per tensor, ${channel.measured[bits - 1].toFixed(1)} dB per channel.`);
}

function words(view, bits) {
  const line = (curve) => `${curve.name} ${curve.measured[bits - 1].toFixed(1)} dB (theory ${curve.expected[bits - 1].toFixed(1)})`;
  const share = 10 ** (-view.curves[1].measured[bits - 1] / 20);
  const gain = bits > 1 ? view.curves[1].measured[bits - 1] - view.curves[1].measured[bits - 2] : null;
  return [
    `${view.headline}, ${bits} bit${bits > 1 ? "s" : ""}: ${view.curves.map(line).join(", ")}. Per channel the error is ${percent(share)} of the weight.`,
    gain === null ? "" : `The last bit gained ${gain.toFixed(1)} dB per channel.`,
    ...view.sentences,
  ];
}

function render({ model, el }) {
  const svg = chart(720, 262);
  const questions = traitAsker(model);
  let bits = model.get("bits");
  const part = lesson("What a bit buys", [
    choice({ label: "layer", options: model.get("layers"), value: model.get("view").layer, onchange: (layer) => questions.ask({ layer }) }),
    slider({ label: "bits", min: 1, max: 12, value: bits, oninput: (value) => { bits = value; show(); } }),
  ], [svg]);
  function show() {
    const view = model.get("view");
    part.fault.textContent = view.error ?? "";
    if (view.error) return;
    drawCurves(svg, view, bits);
    tell(part.words, words(view, bits));
  }
  const draw = () => { show(); questions.answered(); };
  el.replaceChildren(part.root);
  hideWhatStays(el);
  return follow(model, ["view"], draw);
}

export default { render };
