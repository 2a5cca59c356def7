const PAUSE = 120; // milliseconds without a key before the text is looked at

/** One option: its control, what it is for, and why it does not count if so. */
function optionRow(section, option, put) {
  const name = `${section}.${option.key}`;
  const id = `ptq-${Math.random().toString(36).slice(2)}`;
  const about = { id, "aria-describedby": `${id}-about ${id}-note` };
  const change = () => put(section, option.key, control.value === "" ? null : control.value);
  const control = option.words
    ? h("select", about, h("option", { value: "" }, option.default ? `default: ${option.default}` : "not set"),
        option.words.map((word) => h("option", { value: word }, word)))
    : h("input", { ...about, autocomplete: "off", spellcheck: "false", placeholder: option.default || (option.example ? `e.g. ${option.example}` : ""),
        ...(option.high === undefined ? { type: "text" } : { type: "number", min: option.low, max: option.high, step: 1 }) });
  control.addEventListener(option.words ? "change" : "input", change);
  keepKeys(control);
  const drop = button("×", () => put(section, option.key, null), { "aria-label": `Take ${option.key} of ${section} out`, title: "take it out" });
  const note = h("p", { id: `${id}-note`, role: "status" });
  const more = `${option.when} Allowed: ${option.allowed}.${option.ignored ? ` Does nothing if ${option.ignored}.` : ""}`;
  const what = h("p", { class: "ptq-quiet", id: `${id}-about` }, option.what, h("span", { class: "more" }, ` ${more}`));
  const element = h("div", { class: "option" }, h("label", { for: id, title: more }, option.key), control, drop, what, note);
  let odd = null;
  const draw = ({ values, blocked, problems }) => {
    const value = values[name], reason = blocked[name] ?? blocked[section] ?? "";
    element.classList.toggle("set", value !== undefined);
    drop.classList.toggle("gone", value === undefined);
    control.disabled = Boolean(reason);
    odd?.remove();
    odd = null;
    if (option.words && value !== undefined && !option.words.includes(value)) {
      odd = h("option", { value }, `${value} (as written)`);
      control.append(odd);
    }
    if (control.type === "number" && value !== undefined && !/^-?\d+$/.test(value)) control.type = "text";
    if (document.activeElement !== control || control.value.trim() !== (value ?? "").trim()) control.value = value ?? "";
    const mine = problems.filter((problem) => problem.option === name);
    note.replaceChildren(...(reason ? [h("span", {}, reason)] : []),
      ...mine.map((problem) => h("div", { class: problem.level }, problem.text.replace(/^line \d+: \[[^\]]*\] [^:]*: /, ""))));
    note.hidden = !note.childNodes.length;
    control.setAttribute("aria-invalid", String(mine.some((problem) => problem.level === "error")));
    what.hidden = Boolean(reason) && value === undefined;
  };
  return { element, draw };
}

function sectionBox({ name, about, options }, put) {
  const rows = options.map((option) => optionRow(name, option, put));
  const state = h("span", { class: "ptq-quiet" });
  const summary = keepKeys(h("summary", { tabindex: 0 }, h("code", {}, name), " ", state));
  const element = h("details", {}, summary, h("p", { class: "about" }, about), rows.map((row) => row.element));
  let applied = null;
  const draw = (shown) => {
    const reason = shown.blocked[name] ?? "";
    const count = options.filter((option) => `${name}.${option.key}` in shown.values).length;
    state.textContent = [reason, count ? `${count} set` : ""].filter(Boolean).join(" · ");
    if (applied !== !reason) element.open = !reason && (count > 0 || name === "common_quant_param");
    applied = !reason;
    for (const row of rows) row.draw(shown);
  };
  return { element, draw };
}

/** Whether the page has the extension that writes texts into cells; a message that nobody hears would be an error. */
function takesCells() {
  const { federated_extensions: extensions = [], disabledExtensions: disabled = [] } =
    JSON.parse(document.getElementById("jupyter-config-data")?.textContent || "{}");
  const off = disabled.some((name) => String(name).split(":")[0] === "ptq-lab");
  return extensions.some(({ name }) => name === "ptq-lab") && !off;
}

function render({ model, el }) {
  let timer = 0, settling = 0, count = 0, asked = null, dirty = false;
  const view = Math.random().toString(36).slice(2, 8);
  const send = (message) => {
    asked = `${view}${(count += 1)}`;
    model.send({ ...message, seq: asked });
  };
  const area = keepKeys(h("textarea", { rows: 18, spellcheck: "false", "aria-label": "Configuration as INI text" }));
  area.value = model.get("text");
  const flush = () => {
    clearTimeout(timer);
    if (dirty) send({ do: "text", text: area.value });
    dirty = false;
  };
  area.addEventListener("input", () => {
    dirty = true;
    clearTimeout(timer);
    timer = setTimeout(flush, PAUSE);
  });
  const put = (section, key, value) => {
    flush();
    send({ do: "put", section, key, value });
  };
  const boxes = model.get("form").map((section) => sectionBox(section, put));
  const problems = h("ul", { class: "problems", "aria-label": "Problems" });
  const verdict = h("span", { role: "status" });
  const said = h("div", { class: "said", role: "status" });
  const path = model.get("model_path");
  const file = path === null ? h("strong", {}, model.get("model_name"))
    : keepKeys(h("input", { type: "text", value: path, placeholder: "model.onnx", "aria-label": "Path of the model", spellcheck: "false" }));
  const broken = h("span", { class: "bad", role: "status" });
  if (path !== null) file.addEventListener("input", () => send({ do: "model", path: file.value }));
  const run = button("Run", () => {
    flush();
    run.disabled = true;
    send({ do: "run" });
  });
  const whole = keepKeys(h("textarea", { readonly: true, hidden: true, rows: 6, "aria-label": "The cell to copy" }));
  const copied = h("span", { role: "status" });
  const copy = button("Copy as cell", async () => {
    whole.value = `${model.get("first_line")}\n${area.value}`;
    whole.hidden = false; // where copying is forbidden it is selected instead
    copied.textContent = await copyText(whole);
    whole.hidden = copied.textContent === "copied";
  });
  const toCell = takesCells() ? button("To cell", () => { flush(); send({ do: "cell" }); }) : null;

  const select = ({ line, column, end }) => {
    const start = area.value.split("\n").slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
    area.focus();
    area.setSelectionRange(start + Math.max(0, column - 1), start + Math.max(column - 1, end - 1));
  };
  const draw = () => {
    const state = model.get("state");
    if (state.seq === asked) asked = null;
    for (const box of boxes) box.draw(state);
    const errors = state.problems.filter((problem) => problem.level === "error").length;
    const others = state.problems.length - errors;
    const counted = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
    verdict.className = errors ? "bad" : "";
    verdict.textContent = errors ? counted(errors, "error") : others ? `no errors, ${counted(others, "remark")}` : "no problems";
    problems.replaceChildren(...state.problems.map((problem) => h("li", { class: problem.level },
      keepKeys(h("button", { type: "button", onclick: () => select(problem) }, `${problem.level}: ${problem.text}`)))));
    broken.textContent = state.model;
    if (draw.settled !== undefined && draw.settled !== model.get("text")) {
      clearTimeout(settling);
      settling = setTimeout(() => send({ do: "settle" }), 900);
    }
    draw.settled = model.get("text");
  };
  const write = () => {
    const text = model.get("text");
    if (dirty || area.value === text) return; // the kernel answers to what was typed a moment ago
    const [start, end] = [area.selectionStart, area.selectionEnd];
    area.value = text;
    if (document.activeElement === area) area.setSelectionRange(start, end);
  };
  const tell = () => {
    const { text = "", bad = false, busy = false } = model.get("said");
    said.className = bad ? "said bad" : "said";
    said.textContent = text;
    run.disabled = busy;
  };

  const root = h("div", { class: "ptq ptq-editor", role: "region", "aria-label": "Configuration editor" },
    h("div", { class: "bar" }, h("span", { class: "ptq-quiet" }, "Model"), file, run, broken), said,
    h("div", { class: "sides" },
      h("div", { class: "form", role: "group", "aria-label": "Options" }, boxes.map((box) => box.element)),
      h("div", { class: "text" }, area, verdict, problems, h("div", { class: "bar" }, copy, toCell, copied), whole)));
  root.addEventListener("keydown", (event) => event.stopPropagation()); // JupyterLab would take Enter from the text
  el.append(root);
  const undos = [follow(model, ["text"], write), follow(model, ["state"], draw), follow(model, ["said"], tell), hideWhatStays(el)];
  return () => {
    clearTimeout(timer);
    clearTimeout(settling);
    undos.forEach((each) => each());
  };
}

export default { render };
