"""How well words can be read: every text of a page against what is behind it."""

CONTRASTS = """selector => {
  const rgba = text => { const c = text.match(/[\\d.]+/g).map(Number); return c.length === 3 ? [...c, 1] : c; };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
  const luminance = c => c.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    if (!element) return [255, 255, 255];
    const colour = rgba(getComputedStyle(element).backgroundColor);
    return colour[3] === 1 ? colour : over(colour, behind(element.parentElement));
  };
  const ratio = (colour, ground) => {
    const pair = [luminance(over(rgba(colour), ground)), luminance(ground)];
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  };
  const found = [];
  for (const e of document.querySelectorAll(selector)) {
    if (!e.getClientRects().length || (e.disabled && e.tagName === "BUTTON")) continue;
    if (/^(STYLE|TITLE|OPTION)$/i.test(e.tagName)) continue;
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())
      || /INPUT|SELECT|TEXTAREA/.test(e.tagName);
    if (!own || e.type === "range") continue;
    const style = getComputedStyle(e), ground = behind(e);
    found.push([ratio(e instanceof SVGElement ? style.fill : style.color, ground), e.outerHTML.slice(0, 80)]);
    if (e.placeholder)
      found.push([ratio(getComputedStyle(e, "::placeholder").color, ground), "placeholder " + e.placeholder]);
  }
  return found;
}"""
"""Ratio and text of everything below a selector that can be read or used, both colours blended as they are drawn."""
