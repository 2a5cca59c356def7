// What every live part uses. No imports, no build: this file and the part's own are joined into one module.

/** Make an element: h("button", {type: "button", onclick: f}, "text", child). */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** Make an SVG element. */
function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.flat());
  return element;
}

/** Let a control keep its keys: JupyterLab takes arrows for itself unless the focused element says otherwise. */
function keepKeys(control) {
  control.setAttribute("data-lm-suppress-shortcuts", "true");
  return control;
}

/** A range input with its name and its value; `oninput` gets the number. */
function slider({ label, min, max, step = 1, value, oninput, text = String, hidden = false }) {
  const shown = h("output", { class: "ptq-value" }, text(value));
  const input = keepKeys(h("input", { type: "range", min, max, step, "aria-label": label, "aria-valuetext": text(value) }));
  input.value = value; // after min, max and step, which would clamp it
  const tell = (number) => {
    shown.textContent = text(number);
    input.setAttribute("aria-valuetext", text(number));
  };
  input.addEventListener("input", () => {
    tell(Number(input.value));
    oninput(Number(input.value));
  });
  const row = h("label", { class: "ptq-slider" }, hidden ? null : h("span", {}, label), input, shown);
  row.set = (number) => {
    input.value = number;
    tell(number);
  };
  row.input = input;
  return row;
}

/** A button that keeps its keys. */
function button(label, onclick, attributes = {}) {
  return keepKeys(h("button", { type: "button", class: "ptq-button", onclick, ...attributes }, label));
}

/** Call `draw` now and whenever one of the traits changes; returns what undoes it. */
function follow(model, traits, draw) {
  for (const trait of traits) model.on(`change:${trait}`, draw);
  draw();
  return () => traits.forEach((trait) => model.off(`change:${trait}`, draw));
}

/** Copy what a text area holds; where the browser forbids that, select it. Returns what to tell the reader. */
async function copyText(area) {
  try {
    await navigator.clipboard.writeText(area.value);
    return "copied";
  } catch {
    area.focus();
    area.select();
    return "selected: press Ctrl+C";
  }
}

/** Hide what stands below a live part for pages without a kernel; returns what shows it again. */
function hideWhatStays(element) {
  let area = null;
  const hide = () => {
    area = element.closest(".jp-OutputArea-output, .output_area")?.closest(".jp-OutputArea, .output") ?? area;
    area?.classList.add("ptq-alive"); // the styles hide what is inside, also what is drawn later
  };
  requestAnimationFrame(hide); // the element is not on the page yet
  const later = setTimeout(hide, 400);
  return () => {
    clearTimeout(later);
    area?.classList.remove("ptq-alive");
  };
}
