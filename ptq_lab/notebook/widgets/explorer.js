const bitsText = (bits) => (bits === 0 ? "float" : bits === 1 ? "1 bit" : `${bits} bits`);
const sizeText = (bytes) => {
  const power = bytes >= 1e6 ? 2 : bytes >= 1e3 ? 1 : 0;
  return `${power ? (bytes / 1000 ** power).toPrecision(3) : bytes} ${["B", "kB", "MB"][power]}`;
};
const errorText = (error) => (error === 0 ? "0" : error.toExponential(1));
const LEAST = 1e-9; // errors below have no bar
const barWidth = (error) => Math.max(0, Math.min(1, 1 - Math.log10(Math.max(error, LEAST)) / Math.log10(LEAST)));

/** Sends moves to the kernel: of those that come while it is busy only the last one, so that it never lags behind. */
function courier(model, complain) {
  const view = Math.random().toString(36).slice(2, 8);
  let count = 0, waiting = null, asked = null, since = 0, silence = 0, gesture = 0, moved = 0, mover = null;
  const send = (message) => {
    asked = `${view}${(count += 1)}`;
    since = performance.now();
    clearTimeout(silence);
    silence = setTimeout(complain, 8000);
    model.send({ ...message, seq: asked });
  };
  const heard = () => {
    if (model.get("now").seq === asked) {
      asked = null;
      clearTimeout(silence);
    }
    if (asked === null && waiting !== null) {
      const message = waiting;
      waiting = null;
      send(message);
    }
  };
  return {
    send,
    heard,
    stop: () => clearTimeout(silence),
    busy: () => asked !== null || waiting !== null,
    /** A move of a slider; moves of one control without a pause count as one step to undo. */
    move(control, message) {
      if (control !== mover || performance.now() - moved > 1000) gesture += 1;
      [mover, moved] = [control, performance.now()];
      const whole = { ...message, gesture: `${view}${gesture}` };
      if (asked === null || performance.now() - since > 5000) send(whole);
      else waiting = whole;
    },
  };
}

function layerRow([name, op, bytes, shape], index, post, moved) {
  const control = slider({
    label: `Bits of ${name}`, min: 0, max: 16, value: 8, text: bitsText, hidden: true,
    oninput: (bits) => {
      moved(index);
      post.move(control, { do: "set", layer: index, bits });
    },
  });
  const size = h("span", { class: "num" });
  const [fill, error] = [h("i"), h("span", { class: "num" })];
  const bar = h("div", { class: "error" }, h("div", { class: "track" }, fill), error);
  const pin = button("pin", () => post.send({ do: "pin", layer: index, on: pin.getAttribute("aria-pressed") === "false" }), {
    "aria-label": `Pin ${name}: a budget leaves its bits alone`, "aria-pressed": "false",
  });
  const ask = button("float?", () => post.send({ do: "what_if", layer: index }), {
    "aria-label": `What would keeping ${name} in float do?`,
  });
  const element = h("div", { class: "row", role: "listitem" },
    h("span", { class: "name", title: `${name}, ${shape}, ${sizeText(bytes)} as float` }, name),
    h("span", { class: "ptq-quiet", title: op }, op), size, control, bar, pin, ask);
  let shown = "";
  const draw = (now, pinned, most, busy) => {
    const key = [now.bits[index], now.errors[index], pinned, most].join();
    if (!busy && Number(control.input.value) !== now.bits[index]) control.set(now.bits[index]);
    if (key === shown) return;
    shown = key;
    size.textContent = sizeText(now.bytes[index]);
    error.textContent = errorText(now.errors[index]);
    fill.style.width = `${100 * barWidth(now.errors[index])}%`;
    bar.classList.toggle("most", most);
    pin.setAttribute("aria-pressed", String(pinned));
  };
  return { element, control, draw, name: name.toLowerCase() + " " + op.toLowerCase(), index };
}

function drawFront(svg, front, now) {
  const [W, H, L, R, T, B] = [496, 232, 46, 10, 10, 54];
  const points = [...front.curve, ...front.uniform.map((p) => p.slice(1)), ...front.rule.map((p) => p.slice(1)), ...front.verified];
  const current = [now.file, Math.max(1e-7, 1 - (now.measured ?? now.cosine))];
  const sizes = [...points, current].map((p) => p[0]);
  const [low, high] = [Math.min(...sizes), Math.max(...sizes)];
  const powers = [...points, current].map((p) => Math.log10(p[1]));
  const [bottom, top] = [Math.floor(Math.min(...powers)), Math.max(...powers)];
  const x = (bytes) => L + ((W - L - R) * (bytes - low)) / (high - low || 1);
  const y = (error) => T + ((H - T - B) * (top - Math.log10(error))) / (top - bottom || 1);
  const parts = [];
  for (let power = bottom; power <= top; power += 1) {
    const at = y(10 ** power);
    parts.push(s("line", { class: "grid", x1: L, x2: W - R, y1: at, y2: at }), s("text", { x: L - 4, y: at + 4, "text-anchor": "end" }, `1e${power}`));
  }
  parts.push(s("text", { x: L, y: H - B + 16 }, sizeText(low)), s("text", { x: W - R, y: H - B + 16, "text-anchor": "end" }, sizeText(high)));
  parts.push(s("text", { x: (L + W) / 2, y: H - B + 16, "text-anchor": "middle" }, "bytes of the file"));
  parts.push(s("text", { x: W - R, y: T + 4, "text-anchor": "end" }, "1 - cosine of the output"));
  const path = front.curve.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("");
  parts.push(s("path", { d: path, fill: "none", stroke: "var(--ptq-accent)", "stroke-width": 2 }));
  const shapes = {
    square: (a, b, more) => s("rect", { x: a - 4, y: b - 4, width: 8, height: 8, ...more }),
    diamond: (a, b, more) => s("path", { d: `M${a} ${b - 6}l6 6l-6 6l-6 -6z`, ...more }),
    ring: (a, b, more) => s("circle", { cx: a, cy: b, r: 4, ...more }),
    dot: (a, b, more) => s("circle", { cx: a, cy: b, r: 7, ...more }),
  };
  const hollow = (colour) => ({ fill: "none", stroke: colour, "stroke-width": 2 });
  const kinds = [
    ["one width for all", "square", hollow("var(--ptq-second)"), front.uniform],
    ["the original's rule", "diamond", hollow("var(--ptq-quiet)"), front.rule],
    ["verified", "ring", hollow("var(--ptq-good)"), front.verified.map((p) => ["verified", ...p])],
    [now.measured === null ? "now, expected" : "now, verified", "dot",
      { fill: "var(--ptq-accent)", stroke: "var(--ptq-ground)", "stroke-width": 2 }, [["now", ...current]]],
  ];
  kinds.forEach(([name, shape, look, list], place) => {
    for (const [label, bytes, error] of list) {
      const tip = s("title", {}, `${label}: ${sizeText(bytes)}, 1 - cosine ${errorText(error)}`);
      const mark = shapes[shape](x(bytes), y(error), look);
      mark.append(tip);
      parts.push(mark);
    }
    const at = L + [0, 126, 252, 330][place];
    parts.push(shapes[shape](at + 6, H - 14, look), s("text", { x: at + 17, y: H - 10 }, name));
  });
  svg.replaceChildren(...parts);
  svg.setAttribute("aria-label", `Size against error: now ${sizeText(now.file)} with 1 - cosine ${errorText(current[1])}; `
    + `the best choices lie between ${sizeText(low)} and ${sizeText(high)}`);
}

const BUDGETS = {
  target_size_mb: { name: "file size", scale: (front) => [front.sizes[0], front.sizes[1], (front.sizes[1] - front.sizes[0]) / 200],
    text: (value) => sizeText(value), send: (value) => Math.ceil(value) / 1e6, start: (now) => now.file },
  average_bits: { name: "average bits", scale: (front) => [front.widths[0], front.widths[1], 0.1],
    text: (value) => `${value.toFixed(1)} bits`, send: (value) => value, start: (now) => now.average ?? 8 },
  min_cosine: { name: "cosine to keep", scale: () => [0.5, 6, 0.1],
    text: (value) => (1 - 10 ** -value).toFixed(6), send: (value) => 1 - 10 ** -value,
    start: (now) => -Math.log10(Math.max(1e-6, 1 - now.cosine)) },
};

function budget(model, post) {
  const place = h("span");
  const kind = keepKeys(h("select", { "aria-label": "What the budget limits" },
    Object.entries(BUDGETS).map(([key, { name }]) => h("option", { value: key }, name))));
  const draw = () => {
    const { name, scale, text, send, start } = BUDGETS[kind.value];
    const front = model.get("front");
    if (!front.sizes) return;
    const [min, max, step] = scale(front);
    const control = slider({ label: `Budget: ${name}`, min, max, step, hidden: true, text, value: start(model.get("now")),
      oninput: (value) => post.move(control, { do: "fit", key: kind.value, value: send(value) }) });
    place.replaceChildren(control);
  };
  kind.addEventListener("change", draw);
  return { element: h("div", { class: "bar budget" }, h("span", { class: "ptq-quiet" }, "Budget"), kind, place), draw };
}

/** Names come as what differs from the one before: how much of its start and of its end is the same, and the middle. */
function named(layers) {
  let before = "";
  return layers.map(([[start, end, middle], ...rest]) => {
    before = before.slice(0, start) + middle + before.slice(before.length - end);
    return [before, ...rest];
  });
}

function exported(model, post) {
  const text = keepKeys(h("textarea", { rows: 10, readonly: true, "aria-label": "The choice as INI text", spellcheck: "false" }));
  const told = h("span", { role: "status" });
  const copied = button("Copy", async () => { told.textContent = await copyText(text); });
  const summary = keepKeys(h("summary", { tabindex: 0 }, "INI text of this choice"));
  const element = h("details", {}, summary, h("div", { class: "bar" }, copied, told), text);
  const ask = () => { if (element.open) post.send({ do: "recipe" }); };
  const hear = (message) => {
    if (message.recipe !== undefined) text.value = message.recipe;
    told.textContent = "";
  };
  element.addEventListener("toggle", ask);
  model.on("msg:custom", hear);
  return { element, ask, stop: () => model.off("msg:custom", hear) };
}

function render({ model, el }) {
  const said = h("div", { class: "said", role: "status" });
  const post = courier(model, () => { said.textContent = "no answer so far: the kernel is busy, or gone (then run the cell again)"; });
  let touched = -1, settling = 0;
  const rows = named(model.get("layers")).map((layer, index) => layerRow(layer, index, post, (row) => { touched = row; }));
  const head = h("div", { class: "head", "aria-hidden": "true" },
    ["layer", "operator", "bytes", "bits (left end: float)", "error of it alone"].map((name, i) => h("span", i === 2 ? { class: "num" } : {}, name)));
  const list = h("div", { class: "rows", role: "list", "aria-label": "Layers" });
  const [file, cosine, average, measured] = ["big", "big", "", ""].map((look) => h("dd", { class: look }));
  const expected = h("dl", { class: "facts", "aria-live": "polite" },
    h("dt", {}, "file, about"), file, h("dt", {}, "cosine, expected"), cosine,
    h("dt", {}, "bits per weight"), average, h("dt", {}, "cosine, verified"), measured);
  const picture = s("svg", { viewBox: "0 0 496 232", role: "img" });
  const limit = budget(model, post);
  const ini = exported(model, post);
  const undo = button("Undo", () => post.send({ do: "undo" }), { "aria-keyshortcuts": "Control+Z" });
  const redo = button("Redo", () => post.send({ do: "redo" }), { "aria-keyshortcuts": "Control+Y" });
  const verify = button("Verify", () => {
    verify.disabled = true;
    said.textContent = "running the model on samples ...";
    post.send({ do: "verify" });
  });
  const free = button("Unpin all", () => post.send({ do: "free" }));
  const start = keepKeys(h("select", { "aria-label": "Start from" }, h("option", { value: "" }, "start from ...")));
  start.addEventListener("change", () => {
    if (start.value) post.send({ do: "take", label: start.value });
    start.value = "";
  });
  const filter = keepKeys(h("input", { type: "search", placeholder: "filter by name or operator", "aria-label": "Filter layers" }));
  const order = keepKeys(h("select", { "aria-label": "Order of the layers" },
    ["depth", "error", "bytes"].map((name) => h("option", { value: name }, `by ${name}`))));
  const shown = h("span", { class: "ptq-quiet", role: "status" });

  const arrange = () => {
    const now = model.get("now");
    const wanted = filter.value.trim().toLowerCase();
    const keys = { depth: (row) => row.index, error: (row) => -now.errors[row.index], bytes: (row) => -now.bytes[row.index] };
    const kept = rows.filter((row) => row.name.includes(wanted));
    kept.sort((a, b) => keys[order.value](a) - keys[order.value](b) || a.index - b.index);
    list.replaceChildren(head, ...kept.map((row) => row.element));
    shown.textContent = kept.length === rows.length ? `${rows.length} layers` : `${kept.length} of ${rows.length} layers`;
  };
  filter.addEventListener("input", arrange);
  order.addEventListener("change", arrange);

  const draw = () => {
    post.heard();
    const now = model.get("now");
    const pins = new Set(now.pins);
    const total = now.errors.reduce((sum, error) => sum + error, 0);
    for (const row of rows) {
      const many = now.errors[row.index] > 0.1 * total;
      row.draw(now, pins.has(row.index), many, post.busy() && row.index === touched);
    }
    file.textContent = `${sizeText(now.file)}, ${now.ratio < 1 ? `${(1 / now.ratio).toFixed(2)} times larger` : `${now.ratio.toFixed(2)} times smaller`}`;
    cosine.textContent = now.cosine.toFixed(6);
    average.textContent = now.average === null ? "all in float" : now.average.toFixed(2);
    measured.textContent = now.measured === null ? "not run yet" : now.measured.toFixed(6);
    [undo.disabled, redo.disabled, free.disabled] = [!now.steps[0], !now.steps[1], !now.pins.length];
    verify.disabled = false;
    if (model.get("front").curve) drawFront(picture, model.get("front"), now);
    const choice = [now.bits, now.pins, now.measured].join(";");
    if (choice !== draw.settled) {
      draw.settled = choice;
      clearTimeout(settling);
      settling = setTimeout(() => {
        post.send({ do: "settle" });
        ini.ask();
      }, 350);
    }
  };
  const tell = () => {
    const { text = "", bad = false, offer = null } = model.get("said");
    said.className = bad ? "said bad" : "said";
    said.replaceChildren(text);
    if (offer !== null) said.append(" ", button("Do it", () => post.send({ do: "set", layer: offer, bits: 0 })));
  };
  const redraw = () => {
    const { uniform = [], rule = [] } = model.get("front");
    if (start.options.length === 1) start.append(...[...uniform, ...rule].map(([label]) => h("option", { value: label }, label)));
    if (uniform.length) drawFront(picture, model.get("front"), model.get("now"));
    if (!limit.element.querySelector("input")) limit.draw();
  };

  const root = h("div", { class: "ptq ptq-explorer", role: "region", "aria-label": `Mixed bits of ${model.get("title")}` },
    h("h3", {}, `${model.get("title")}: bits of every layer`),
    h("div", { class: "top" },
      h("div", { class: "left" }, expected, limit.element, h("div", { class: "bar" }, start, verify, undo, redo, free), said), picture),
    h("div", { class: "bar" }, filter, order, shown,
      h("span", { class: "ptq-quiet" }, "Ctrl+arrows: next layer · Ctrl+Z, Ctrl+Y: undo, redo")),
    list, ini.element);
  root.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const sliders = [...list.querySelectorAll("input[type=range]")];
    const at = sliders.indexOf(document.activeElement);
    if (step && at >= 0) sliders[at + step]?.focus();
    else if (["z", "y"].includes(event.key) && event.target !== filter) post.send({ do: event.key === "z" ? "undo" : "redo" });
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  el.append(root);
  const undos = [follow(model, ["now"], draw), follow(model, ["said"], tell), follow(model, ["front"], redraw), ini.stop, post.stop];
  arrange();
  undos.push(hideWhatStays(el), () => clearTimeout(settling));
  return () => undos.forEach((each) => each());
}

export default { render };
