/** What an option means, shown where the pointer rests. */

import type { Extension } from '@codemirror/state';
import { hoverTooltip } from '@codemirror/view';

import { cursorAt } from './cursor';
import type { Declarations } from './declarations';
import { aboutOption, aboutSection, type Facts } from './explain';
import type { Target } from './target';

/** Explanations for the sections, keys and values of a document. */
export function hover(declarations: Promise<Declarations>, target: Target): Extension {
  return hoverTooltip(async (view, position) => {
    const declared = await declarations;
    const at = cursorAt(view.state.doc.toString(), position, target.before);
    if (at.part === 'none' || position < at.from || position > at.to) return null;
    const facts =
      at.part === 'section' ? aboutSection(declared, at.section) : aboutOption(declared, at.section, at.key);
    if (!facts) return null;
    return { pos: at.from, end: at.to, above: true, create: () => ({ dom: draw(facts) }) };
  });
}

/** Facts as an element; everything is set as text. */
export function draw(facts: Facts): HTMLElement {
  const box = document.createElement('div');
  box.className = 'ptq-hover';
  const title = box.appendChild(document.createElement('code'));
  title.textContent = facts.title;
  box.appendChild(document.createElement('p')).textContent = facts.what;
  const list = box.appendChild(document.createElement('dl'));
  for (const [label, text] of facts.rows) {
    list.appendChild(document.createElement('dt')).textContent = label;
    list.appendChild(document.createElement('dd')).textContent = text;
  }
  return box;
}
