/** Values from text, by their kind; the same values and the same refusals as `ptq_lab.config.kinds` and `lists`. */

import { inputShapes, profileGroups } from './ascend';
import { Kind, Option } from './declarations';
import { patternProblem } from './pattern';
import { Rejected } from './rejected';
import { closest } from './suggest';
import { bare, general, shortest, show, strip } from './text';

export type Value = number | boolean | string | string[] | number[] | [string, string][];

const WHOLE = /^[+-]?[0-9]+$/;
const REAL = /^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$/;
const HEX = /^([+-]?)0[xX]([0-9a-fA-F]+)(?:\.([0-9a-fA-F]*))?(?:[pP]([+-]?[0-9]+))?$/;
const FULL_WIDTH: Record<string, string> = { '，': ',', '、': ',', '：': ':', '。': '.', '［': '[', '］': ']' };
const COMMAS = ',，、';
// A quoted run. A single quote opens only at the start of an item, so an apostrophe inside a name is a letter.
const TOKEN = /"[^"]*"|(?<![^\s:：,，、])'[^']*'(?![^\s:：,，、])|[^]/g;
const MEANT: Record<string, string> = { '1': 'true', yes: 'true', on: 'true', '0': 'false', no: 'false', off: 'false' };
const GRAMMARS: Record<string, (text: string) => unknown> = {
  input_shapes: inputShapes,
  profile_groups: profileGroups
};

type Reader = (text: string, kind: Kind, allowed: string) => Value;

const READERS: Record<string, Reader> = {
  Whole: readWhole,
  Real: readReal,
  Flag: readFlag,
  Choice: readChoice,
  Vector: readVector,
  Names: readNames,
  WholeList: readWholes,
  FilePath: text => writable(unquote(text), 'the path'),
  Pairs: readPairs,
  Text: readText
};

/** The names of the kinds that can be read here; a test compares them with the declarations. */
export const KINDS = Object.keys(READERS);

/** Read the value that text stands for. Throws `Rejected`. */
export function readValue(text: string, option: Option): Value {
  return READERS[option.kind.type](text, option.kind, option.allowed);
}

/** Write a value as a message about it names it. */
export function writeValue(value: Value, kind: Kind): string {
  if (kind.type === 'Names') return (value as string[]).join(',');
  return typeof value === 'number' ? shortest(value) : String(value);
}

/** Full-width punctuation, which input methods leave behind, as plain one. */
function narrow(text: string): string {
  return text.replace(/[，、：。［］]/g, char => FULL_WIDTH[char]);
}

function range(kind: Kind): string {
  return kind.high === null || kind.high === undefined ? `${kind.low} or more` : `${kind.low}..${kind.high}`;
}

function readWhole(text: string, kind: Kind): number {
  const digits = bare(text);
  if (!WHOLE.test(digits) || digits.length > 60) {
    throw new Rejected(`${show(digits)} is not a whole number`, `allowed: ${range(kind)}`);
  }
  const number = BigInt(digits.replace(/^\+/, ''));
  const bounded = kind.high !== null && kind.high !== undefined;
  if (number < BigInt(kind.low as number) || (bounded && number > BigInt(kind.high as number))) {
    throw new Rejected(`${show(number)} is ${bounded ? 'outside' : 'not'} ${range(kind)}`, '', '', true);
  }
  return Number(number);
}

function realNumber(text: string): number {
  const digits = bare(text);
  let number = REAL.test(digits) ? Number(digits) : NaN;
  const hex = HEX.exec(digits);
  if (hex) {
    const fraction = hex[3] ?? '';
    const size = Number(BigInt(`0x${hex[2]}${fraction}`)) * 2 ** (Number(hex[4] ?? 0) - 4 * fraction.length);
    number = hex[1] === '-' ? -size : size;
  }
  if (!Number.isFinite(number)) throw new Rejected(`${show(digits)} is not a finite number`);
  return number;
}

function readReal(text: string, kind: Kind, allowed: string): number {
  const number = realNumber(text);
  const { low, high } = kind;
  const hasLow = low !== null && low !== undefined;
  const hasHigh = high !== null && high !== undefined;
  const tooLow = hasLow && (kind.low_open ? number <= low : number < low);
  const tooHigh = hasHigh && (kind.high_open ? number >= high : number > high);
  if (tooLow || tooHigh) {
    const verb = hasLow && hasHigh ? 'outside' : 'not';
    throw new Rejected(`${general(number)} is ${verb} ${allowed}`, '', '', true);
  }
  return number;
}

function meant(suggestion: string): string {
  return suggestion ? `did you mean ${suggestion}?` : '';
}

function readFlag(text: string): boolean {
  const seen = bare(text);
  const word = narrow(seen).replace(/[,.:]+$/, '').toLowerCase();
  if (word === 'true' || word === 'false') return word === 'true';
  const lower = seen.toLowerCase();
  const suggestion = (lower in MEANT && MEANT[lower]) || closest(word, ['true', 'false']);
  throw new Rejected(`${show(seen)} is neither true nor false`, meant(suggestion), suggestion);
}

function readChoice(text: string, kind: Kind, allowed: string): string {
  const seen = bare(text);
  const values = kind.values ?? [];
  const aliases = new Map(Object.entries(kind.aliases ?? {}));
  const word = aliases.get(seen) ?? seen;
  if (values.includes(word)) return word;
  const near = closest(word, [...values, ...aliases.keys()]);
  const suggestion = aliases.get(near) ?? near;
  const complaint = `${show(seen)} is not one of ${allowed}`;
  const elsewhere = new Map(Object.entries(kind.elsewhere ?? {}));
  const other = closest(word, [...elsewhere.keys()]);
  if (!other) throw new Rejected(complaint, meant(suggestion), suggestion);
  const written = `${elsewhere.get(other)}=${other}`;
  const between = suggestion && !elsewhere.has(word); // either may be meant, so that none is the replacement
  throw new Rejected(complaint, between ? `did you mean ${suggestion}, or ${written}?` : `write ${written}`);
}

function tokens(text: string): string[] {
  return text.match(TOKEN) ?? [];
}

/** Split at commas that are not quoted, drop blanks around items and one trailing comma. */
export function splitList(text: string): string[] {
  const items = [''];
  for (const token of tokens(text)) {
    if (token.length === 1 && COMMAS.includes(token)) items.push('');
    else items[items.length - 1] += token;
  }
  if (!strip(items[items.length - 1])) items.pop();
  return items.map(unquote);
}

function unquote(text: string): string {
  const item = strip(text);
  const [first, last, inside] = [item[0], item[item.length - 1], item.slice(1, -1)];
  if (item.length > 1 && first === last && (first === '"' || first === "'") && !inside.includes(first)) return inside;
  return item.replace(/"/g, '');
}

function writable(text: string, what: string): string {
  if (!strip(text)) throw new Rejected(`${what} is empty`);
  if (/["\r\n\0]/.test(text)) throw new Rejected(`${show(text)} holds a double quote, a line break or a NUL byte`);
  return text;
}

function readVector(text: string, _kind: Kind, allowed: string): number[] {
  const inner = narrow(bare(text)).replace(/\.+$/, '');
  if (inner.length < 2 || inner[0] !== '[' || inner[inner.length - 1] !== ']') {
    const hint = 'write it in brackets, e.g. [127.5, 127.5, 127.5]';
    throw new Rejected(`${show(inner)} is not a vector`, hint);
  }
  const items = inner.slice(1, -1).split(',');
  const used = items.length > 1 && !strip(items[items.length - 1]) ? items.slice(0, -1) : items;
  if (!used.length) throw new Rejected('the vector is empty', `allowed: ${allowed}`);
  return used.map(realNumber);
}

/** A name or pattern that an INI line can carry. */
export function checkedName(name: string): string {
  const text = writable(name, 'a name');
  const problem = text.startsWith('re:') ? patternProblem(text.slice(3)) : '';
  if (problem) throw new Rejected(`${show(text)} is not a regular expression: ${problem}`);
  return text;
}

function readNames(text: string, kind: Kind, allowed: string): string[] {
  const names = splitList(text).filter(strip).map(checkedName);
  if (!names.length && !kind.may_be_empty) throw new Rejected(`${show(text)} names nothing`, `allowed: ${allowed}`);
  return names;
}

function readWholes(text: string, kind: Kind, allowed: string): number[] {
  const inner = bare(text).replace(/^\[/, '').replace(/\]$/, '');
  const numbers = splitList(inner).map(item => readWhole(item, kind.each as Kind));
  if (!numbers.length) throw new Rejected('the list is empty', `allowed: ${allowed}`);
  const twice = numbers.filter((number, at) => numbers.indexOf(number) !== at).sort((a, b) => a - b);
  if (twice.length) throw new Rejected(`${twice[0]} is listed twice`);
  return numbers;
}

function readPairs(text: string, _kind: Kind, allowed: string): [string, string][] {
  let items = [''];
  for (const token of tokens(text)) {
    if (token.length === 1 && COMMAS.includes(token)) items.push('');
    else items[items.length - 1] += token;
  }
  if (items.length > 1 && !strip(items[items.length - 1])) items = items.slice(0, -1);
  if (!items.length) throw new Rejected(`${show(text)} names no folder`, `allowed: ${allowed}`);
  return items.map(pair);
}

function pair(item: string): [string, string] {
  for (const colon of [':', '：']) {
    let [at, cut] = [0, -1];
    for (const token of tokens(item)) {
      if (token === colon) cut = at;
      at += token.length;
    }
    if (cut >= 0) {
      const [name, folder] = [unquote(item.slice(0, cut)), unquote(item.slice(cut + 1))];
      return [writable(name, 'an input name'), writable(folder, 'a folder')];
    }
  }
  throw new Rejected(`${show(strip(item))} names no input`, 'write input_name:folder');
}

function readText(text: string, kind: Kind): string {
  const read = writable(bare(text), 'the text');
  if (kind.check) GRAMMARS[kind.check](read);
  return read;
}
