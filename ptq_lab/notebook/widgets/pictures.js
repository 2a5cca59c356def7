// Pictures in float and with fewer bits. They come as messages, not as state: a saved notebook does not carry them.

function picture(caption) {
  const image = h("img", { alt: caption });
  const words = h("figcaption", {}, caption);
  const figure = h("figure", {}, image, words);
  figure.show = (bytes, said = caption) => {
    const old = image.src;
    image.src = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    if (old) URL.revokeObjectURL(old);
    image.alt = said;
    words.textContent = said;
  };
  return figure;
}

function classTable(drawing) {
  const cell = (guess) => [h("td", { class: "ptq-left" }, guess.label), h("td", {}, percent(guess.share)),
    h("td", { class: "ptq-left" }, h("span", { class: "ptq-bar", style: `width:${Math.round(90 * guess.share)}px` }))];
  const [before, after] = drawing.guesses;
  return h("table", { class: "ptq-table" },
    h("thead", {}, h("tr", {}, ["place", "float", "share", "", "quantized", "share", ""].map((word, at) =>
      h("th", { scope: "col", class: at === 1 || at === 4 ? "ptq-left" : null }, word)))),
    h("tbody", {}, before.map((guess, at) => h("tr", { class: guess.label === after[at].label ? "" : "ptq-now" },
      h("th", { scope: "row" }, String(at + 1)), cell(guess), cell(after[at])))));
}

function render({ model, el }) {
  const { variants, samples, factors, makes, label, start } = model.get("view");
  const state = { variant: start, sample: 0, factor: factors.indexOf(8) };
  const questions = asker((question) => model.send(question));
  const ask = () => questions.ask({ sample: state.sample, variant: variants[state.variant], factor: factors[state.factor] });
  const names = makes ? ["input", "float", "quantized", "difference"] : ["input"];
  const shown = names.map(picture);
  const classes = h("div", {});
  const bitsText = (at) => (variants[at] === "result" ? "as quantized" : `${variants[at]} bit${variants[at] === "1" ? "" : "s"}`);
  const controls = [
    slider({ label: "weights", min: 0, max: variants.length - 1, value: state.variant, text: bitsText, oninput: (at) => { state.variant = at; ask(); } }),
    samples > 1 ? slider({ label: "sample", min: 0, max: samples - 1, value: 0, oninput: (at) => { state.sample = at; ask(); } }) : null,
    makes ? slider({ label: "difference", min: 0, max: factors.length - 1, value: state.factor, text: (at) => `× ${factors[at]}`, oninput: (at) => { state.factor = at; ask(); } }) : null,
  ];
  const part = lesson(`What ${label} makes of a picture`, controls.filter(Boolean), [h("div", { class: "ptq-pictures" }, shown, classes)]);
  const answer = (content, buffers) => {
    part.fault.textContent = content.error ?? "";
    if (!content.error) {
      const captions = ["input", "float", content.title, `difference × ${content.factor}`];
      buffers.forEach((bytes, at) => shown[at].show(bytes, captions[at]));
      if (!makes) classes.replaceChildren(classTable(content));
      tell(part.words, [`Sample ${content.sample}, ${content.title}: ${content.facts.join("; ")}.`]);
    }
    questions.answered();
  };
  model.on("msg:custom", answer);
  el.replaceChildren(part.root);
  hideWhatStays(el);
  ask();
  return () => model.off("msg:custom", answer);
}

export default { render };
