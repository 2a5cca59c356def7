/** What stands at a place of a configuration: a section, a key or a value, and of which option. */

import { commentStart, readName } from './ini';
import { stripBlanks } from './text';

export interface Cursor {
  part: 'section' | 'key' | 'value' | 'none';
  section: string;
  key: string;
  /** Where the part starts and ends, in the text. */
  from: number;
  to: number;
}

/** Look at an offset of a text; `before` lines at its start are no configuration. */
export function cursorAt(text: string, offset: number, before: number): Cursor {
  const start = text.lastIndexOf('\n', offset - 1) + 1;
  const next = text.indexOf('\n', offset);
  const line = text.slice(start, next < 0 ? text.length : next);
  const none: Cursor = { part: 'none', section: '', key: '', from: offset, to: offset };
  const above = text.slice(0, start).split('\n').slice(0, -1);
  const indent = line.length - line.trimStart().length;
  const within = offset - start;
  if (above.length < before || line.trimStart().startsWith('#')) return none;
  const section = sectionAbove(above.slice(before));
  const comment = commentStart(line, indent);
  if (within > comment && comment < line.length) return { ...none, section };
  if (/^"?\[/.test(line.slice(indent))) {
    const from = line.indexOf('[') + 1;
    const close = line.indexOf(']', from);
    const to = close < 0 ? comment : close;
    const name = line.slice(from, to).trim();
    return { part: 'section', section: name, key: '', from: start + Math.min(from, to), to: start + to };
  }
  const equals = line.indexOf('=');
  if (equals < 0 || within <= equals) {
    const to = equals < 0 ? comment : equals;
    const keyText = line.slice(indent, to).trimEnd();
    return { part: 'key', section, key: readName(keyText), from: start + indent, to: start + indent + keyText.length };
  }
  const rest = line.slice(equals + 1, comment);
  const from = start + equals + 1 + (rest.length - rest.trimStart().length);
  return { part: 'value', section, key: readName(line.slice(0, equals)), from, to: Math.max(from, start + equals + 1 + rest.trimEnd().length) };
}

/** The name of the last section of these lines, or empty. */
export function sectionAbove(lines: string[]): string {
  for (let index = lines.length - 1; index >= 0; index--) {
    const header = /^\s*"?\[(.*?)(?:\]|$)/.exec(lines[index]);
    if (header) return stripBlanks(header[1].replace(/"/g, ''));
  }
  return '';
}

/** The keys that are written between an offset's section header and the next one. */
export function keysAround(text: string, offset: number): Set<string> {
  const lines = text.split('\n');
  const row = text.slice(0, offset).split('\n').length - 1;
  const isHeader = (line: string): boolean => /^\s*"?\[/.test(line);
  let [first, last] = [row, row];
  while (first > 0 && !isHeader(lines[first])) first--;
  while (last + 1 < lines.length && !isHeader(lines[last + 1])) last++;
  const keys = lines.slice(first, last + 1).filter((_, index) => first + index !== row);
  return new Set(keys.flatMap(line => (line.includes('=') ? [readName(line.slice(0, line.indexOf('=')))] : [])));
}
