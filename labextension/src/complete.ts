/** Completion of sections, keys, values and whole configurations. */

import type { CompletionHandler, ICompletionContext, ICompletionProvider } from '@jupyterlab/completer';

import { type Cursor, cursorAt, keysAround, sectionAbove } from './cursor';
import { Declarations, type Option, own, sectionNames } from './declarations';
import { aboutOption, aboutSection, type Facts, factsText } from './explain';
import { declarations, features } from './features';
import { findTarget, placeOf, type Target } from './target';

type Item = CompletionHandler.ICompletionItem;
type Reply = CompletionHandler.ICompletionItemsReply;

const LISTS = ['Names', 'WholeList'];

export class ConfigCompletions implements ICompletionProvider {
  readonly identifier = 'ptq-lab:config';
  readonly rank = 1100; // above the kernel and the words of the cell
  readonly renderer = null;

  isApplicable(context: ICompletionContext): Promise<boolean> {
    return Promise.resolve(features.current.completion && targetIn(context) !== null);
  }

  async fetch(request: CompletionHandler.IRequest, context: ICompletionContext): Promise<Reply> {
    const target = targetIn(context);
    if (!target) return { start: request.offset, end: request.offset, items: [] };
    return complete(await declarations(), request.text, request.offset, target.before);
  }

  shouldShowContinuousHint(visible: boolean, changed: { sourceChange?: { insert?: unknown }[] }): boolean {
    const typed = changed.sourceChange?.map(part => part.insert).find(text => typeof text === 'string') as
      | string
      | undefined;
    return !visible && typed !== undefined && /[\w[=]$/.test(typed);
  }
}

function targetIn(context: ICompletionContext): Target | null {
  const model = context.editor?.model;
  if (!model) return null;
  return findTarget(model.sharedModel.getSource().split('\n', 201), placeOf(model));
}

/** What fits at an offset of a text whose first lines are a magic, and continues what is typed. */
export function complete(declared: Declarations, text: string, offset: number, before: number): Reply {
  const found = candidates(declared, text, offset, before);
  const typed = text.slice(found.start, offset).toLowerCase();
  const at = ({ label }: Item): number => label.toLowerCase().indexOf(typed);
  const starts = found.items.filter(each => at(each) === 0);
  const holds = found.items.filter(each => at(each) > 0); // Lab itself narrows the list from here on
  return { ...found, items: [...starts, ...holds] };
}

function candidates(declared: Declarations, text: string, offset: number, before: number): Reply {
  const at = cursorAt(text, offset, before);
  if (at.part === 'section') return { start: at.from, end: offset, items: sections(declared, text[offset] === ']') };
  if (at.part === 'value') return values(declared, at, text, offset);
  if (at.part === 'none') return { start: offset, end: offset, items: [] };
  const section = sectionAbove(text.slice(0, at.from).split('\n').slice(before));
  const equals = text.slice(at.to).trimStart().startsWith('=');
  const items = keys(declared, section, keysAround(text, offset), equals);
  if (equals) return { start: at.from, end: offset, items };
  const empty = !text.split('\n').slice(before).some(line => /^\s*"?\[/.test(line));
  const whole = empty ? templates(declared) : [];
  return { start: at.from, end: offset, items: [...items, ...whole, ...headers(declared)] };
}

function item(label: string, insertText: string, type: string, facts: Facts | null): Item {
  return { label, insertText, type, documentation: facts ? factsText(facts) : undefined };
}

function sections(declared: Declarations, closed: boolean): Item[] {
  const end = closed ? '' : ']';
  return sectionNames(declared).map(name => item(name, name + end, 'section', aboutSection(declared, name)));
}

function headers(declared: Declarations): Item[] {
  return sectionNames(declared).map(name => item(`[${name}]`, `[${name}]\n`, 'section', aboutSection(declared, name)));
}

function keys(declared: Declarations, section: string, written: Set<string>, equals: boolean): Item[] {
  const options = own(declared.sections, section)?.options ?? {};
  const missing = Object.keys(options).filter(key => !written.has(key));
  return missing.map(key => item(key, equals ? key : `${key}=`, 'option', aboutOption(declared, section, key)));
}

function templates(declared: Declarations): Item[] {
  return Object.entries(declared.templates).map(([name, { title, text }]) => {
    const facts = { title: name, what: title, rows: [] };
    return item(`${name} (a whole configuration)`, text.trimEnd(), 'template', facts);
  });
}

function values(declared: Declarations, at: Cursor, text: string, offset: number): Reply {
  const option =
    at.section === declared.pins.section
      ? declared.pins.option
      : own(own(declared.sections, at.section)?.options ?? {}, at.key);
  const typed = text.slice(at.from, offset);
  const list = option && LISTS.includes(option.kind.type);
  const skip = list ? Math.max(typed.lastIndexOf(','), typed.lastIndexOf(' ')) + 1 : 0;
  const start = Math.min(at.from + skip, offset);
  const facts = aboutOption(declared, at.section, at.key);
  const words = option ? choices(option) : [];
  return { start, end: offset, items: words.map(word => item(word, word, 'value', facts)) };
}

function choices(option: Option): string[] {
  const { type, values, low, high } = option.kind;
  if (type === 'Flag') return ['true', 'false'];
  if (values) return values;
  if (type === 'Whole' && typeof low === 'number' && typeof high === 'number' && high - low <= 16) {
    return Array.from({ length: high - low + 1 }, (_, step) => String(low + step));
  }
  return [option.defaultText, option.example].filter((word, at, all) => word && all.indexOf(word) === at);
}
