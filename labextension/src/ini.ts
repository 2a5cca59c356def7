/** INI text to entries that remember where they stand; the line rules are those of `ptq_lab.config.ini`. */

import { Declarations, optionOf, own, Problem, sectionNames } from './declarations';
import { BLANKS, cut, repr, stripBlanks, stripEnd, stripStart } from './text';

export interface Header {
  name: string;
  line: number;
  column: number;
  endColumn: number;
  /** Whether the line ends in `]`. */
  closed: boolean;
}

export interface Entry {
  section: string;
  key: string;
  text: string;
  line: number;
  column: number;
  endColumn: number;
  keyColumn: number;
  keyEndColumn: number;
}

export interface Ini {
  headers: Header[];
  entries: Entry[];
  problems: Problem[];
}

const QUOTED_KEY = new RegExp(`"[^"]+"[${BLANKS}]*=`, 'y');
const SPACE = '\\s\\x1c-\\x1f\\x85';
const WITH_COLON = new RegExp(`^[${SPACE}]*[\\p{L}\\p{N}_]+[${SPACE}]*[:：].*$`, 'u');

/** Read a configuration; a line that is no header, entry or comment becomes a problem. */
export function parseIni(declared: Declarations, text: string): Ini {
  const reader = new Reader(declared);
  const lines = text.replace(/^\ufeff/, '').replace(/\r\n?/g, '\n').split('\n');
  let significant = 0;
  for (const [index, raw] of lines.entries()) {
    const line = stripEnd(raw, BLANKS);
    const start = line.length - stripStart(line, BLANKS).length;
    const content = line.slice(start);
    if (!content.replace(/"/g, '') || content.startsWith('#')) continue;
    if (++significant > declared.maxLines) {
      reader.report(index + 1, start, line, `there are more than ${declared.maxLines} lines with content`);
      break;
    }
    reader.line(index + 1, start, line);
  }
  return reader;
}

/** The name that the text before `=` means: verbatim inside quotes, else without stray ones. */
export function readName(text: string): string {
  const name = stripBlanks(text);
  return /^"[^"]*"$/.test(name) ? name.slice(1, -1) : stripBlanks(name.replace(/"/g, ''));
}

class Reader implements Ini {
  readonly headers: Header[] = [];
  readonly entries: Entry[] = [];
  readonly problems: Problem[] = [];
  private section = '';

  constructor(private readonly declared: Declarations) {}

  private get named(): boolean {
    return this.section === this.declared.pins.section;
  }

  line(number: number, start: number, line: string): void {
    QUOTED_KEY.lastIndex = start; // where keys are names, a quoted one may start with a bracket
    const name = this.named && QUOTED_KEY.test(line);
    if (line.slice(start).replace(/"/g, '').startsWith('[') && !name) this.header(number, start, line);
    else this.entry(number, start, line);
  }

  report(line: number, start: number, text: string, message: string, more: Partial<Problem> = {}): void {
    const place = { line, column: start + 1, endColumn: text.length + 1, section: this.section };
    this.problems.push({ level: 'error', key: '', hint: '', suggestion: '', message, ...place, ...more });
  }

  private header(number: number, start: number, line: string): void {
    const body = stripEnd(line.slice(start, commentStart(line, start)), BLANKS);
    const first = body.indexOf('[') + 1;
    const inside = stripEnd(body.slice(first), `"${BLANKS}`);
    const named = this.named;
    const within = inside.replace(/[^]$/u, ''); // whatever the last character is
    const shown = stripBlanks(within, `"${BLANKS}`);
    this.section = shown.replace(/"/g, '');
    const blank = within.length - stripStart(within, `"${BLANKS}`).length;
    const column = shown ? start + first + blank + 1 : start + 1;
    const endColumn = column + (shown.length || body.length);
    const closed = inside.endsWith(']');
    this.headers.push({ name: this.section, line: number, column, endColumn, closed });
    if (!closed) {
      const hint = hintForOpen(inside, named);
      this.report(number, start, line, 'the section header does not end in ]', { level: 'warning', hint });
    } else if (within.replace(/"/g, '') !== this.section) {
      const message = 'blanks inside the brackets hide this section from the original';
      this.report(number, start, line, message, { level: 'warning' });
    }
  }

  private entry(number: number, start: number, line: string): void {
    const equals = find(line, '=', start);
    const comment = commentStart(line, start);
    if (equals < 0 || comment < equals) {
      this.notAnEntry(number, start, stripEnd(line.slice(0, comment), BLANKS));
      return;
    }
    const keyText = stripEnd(line.slice(start, equals), BLANKS);
    const key = this.named ? readName(keyText) : stripBlanks(keyText.replace(/"/g, ''));
    const end = isVerbatim(this.declared, this.section, key) ? line.length : comment;
    let text = stripEnd(line.slice(equals + 1, end), BLANKS);
    const column = equals + 1 + text.length - stripStart(text, BLANKS).length;
    text = stripStart(text, BLANKS);
    if (!text.replace(/"/g, '')) {
      this.noValue(number, start, line, key);
      return;
    }
    const second = find(text, '=', 0);
    if (second === text.length - 1) {
      text = stripEnd(text.slice(0, -1), BLANKS); // a last = on its own falls away in the original
      this.report(number, start, line, "the '=' at the end is dropped", { level: 'warning', key });
    } else if (second >= 0) {
      const hint = `put the ${this.named ? 'name' : 'value'} in double quotes if the "=" belongs to it`;
      this.report(number, start, line, "the value holds another '='", { hint, key });
      return;
    }
    this.add(number, key, text, [column, start, start + keyText.length]);
  }

  private add(line: number, key: string, text: string, columns: [number, number, number]): void {
    const [column, keyStart, keyEnd] = columns;
    if (!this.headers.length) {
      const hint = 'write [common_quant_param] above it';
      const message = 'not used, because no section starts before it';
      this.report(line, keyStart, ' '.repeat(keyStart) + key, message, { level: 'warning', hint, key });
    }
    const place = { line, column: column + 1, endColumn: column + 1 + text.length };
    this.entries.push({
      section: this.section,
      key,
      text,
      ...place,
      keyColumn: keyStart + 1,
      keyEndColumn: keyEnd + 1
    });
  }

  private notAnEntry(number: number, start: number, line: string): void {
    const content = line.slice(start);
    let hint = 'write key=value';
    if (line.includes('＝')) hint = 'write a plain = instead of ＝';
    else if (content.startsWith(';') || content.startsWith('//')) hint = 'a comment starts with #';
    else if (WITH_COLON.test(line)) hint = 'write = instead of :';
    this.report(number, start, line, `${cut(repr(content))} is not key=value`, { hint });
  }

  private noValue(number: number, start: number, line: string, key: string): void {
    const names = !line.endsWith('=') && optionOf(this.declared, this.section, key)?.kind.type === 'Names';
    const hint = 'write key=value, or delete the line to keep the default';
    const message = names ? 'has a comment instead of a value' : 'has no value';
    this.report(number, start, line, message, { hint, key, level: names ? 'warning' : 'error' });
  }
}

/** What to write instead of a header that does not end in `]`. */
function hintForOpen(inside: string, mayBeName: boolean): string {
  if (mayBeName && inside.includes('=')) return 'put the name in double quotes if this is one and not a section';
  const close = inside.indexOf(']');
  let right = close < 0 ? `[${inside}]` : inside.slice(0, close);
  if (close >= 0) {
    const behind = stripBlanks(inside.slice(close + 1).replace(/"/g, ''));
    const move = behind.includes('=') ? 'below it' : 'above it, behind a #';
    right = `[${right}] alone on its line, and ${cut(repr(behind))} ${move}`;
  }
  return `write ${right}; the original takes this for a section it does not know`;
}

/** Whether a value is kept as written, `#` included: paths, and everything other tools own. */
export function isVerbatim(declared: Declarations, section: string, key: string): boolean {
  if (!sectionNames(declared).includes(section)) return true;
  if (section === declared.pins.section) return false;
  const group = declared.sections[section];
  const kind = own(group.options, key)?.kind;
  return kind ? keepsHash(kind) : group.free;
}

/** Whether `#` may belong to values of a kind. */
export function keepsHash(kind: { type: string; check?: string | null }): boolean {
  return kind.type === 'FilePath' || kind.type === 'Pairs' || (kind.type === 'Text' && !kind.check);
}

/** The index of a character outside double quotes, or -1. */
function find(text: string, wanted: string, start: number): number {
  let at = start;
  while (at < text.length) {
    if (text[at] === wanted) return at;
    at = afterToken(text, at);
  }
  return -1;
}

/** Where a comment starts: at a `#` after a blank and outside double quotes; else the length. */
export function commentStart(line: string, start: number): number {
  let at = start;
  while (at < line.length) {
    if (line[at] === '#' && at > start && BLANKS.includes(line[at - 1])) return at;
    at = afterToken(line, at);
  }
  return line.length;
}

function afterToken(text: string, at: number): number {
  const close = text[at] === '"' ? text.indexOf('"', at + 1) : -1;
  return (close < 0 ? at : close) + 1;
}
