/** Text as Python sees it, so that messages read the same on both sides. */

const LONGEST_SHOWN = 60; // characters of a wrong value that are worth repeating in a message
const WHITE = /(?!\ufeff)[\s\x1c-\x1f\x85]/;
const UNPRINTABLE = /(?! )[\p{C}\p{Z}]/u;
const ESCAPES: Record<string, string> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

export const BLANKS = ' \t\u00a0\u3000'; // what the INI grammar strips

/** Text without white space around it; a byte-order mark is none. */
export function strip(text: string): string {
  let [start, end] = [0, text.length];
  while (start < end && WHITE.test(text[start])) start++;
  while (end > start && WHITE.test(text[end - 1])) end--;
  return text.slice(start, end);
}

/** Text without these characters at its start. */
export function stripStart(text: string, characters: string): string {
  let start = 0;
  while (start < text.length && characters.includes(text[start])) start++;
  return text.slice(start);
}

/** Text without these characters at its end. */
export function stripEnd(text: string, characters: string): string {
  let end = text.length;
  while (end > 0 && characters.includes(text[end - 1])) end--;
  return text.slice(0, end);
}

/** Text without blanks of the INI grammar, or others, around it. */
export function stripBlanks(text: string, characters = BLANKS): string {
  return stripStart(stripEnd(text, characters), characters);
}

/** Text without double quotes and outer blanks: quotes never mean anything in a single value. */
export function bare(text: string): string {
  return strip(text.replace(/"/g, ''));
}

function escaped(char: string, quote: string): string {
  if (char === quote) return `\\${char}`;
  if (char in ESCAPES) return ESCAPES[char];
  if (!UNPRINTABLE.test(char)) return char;
  const code = char.codePointAt(0) as number;
  const [letter, width] = code < 0x100 ? ['x', 2] : code < 0x10000 ? ['u', 4] : ['U', 8];
  return `\\${letter}${code.toString(16).padStart(width as number, '0')}`;
}

/** Python's `repr` of text. */
export function repr(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  return quote + Array.from(text, char => escaped(char, quote)).join('') + quote;
}

/** The start of a text that is too long to be repeated. */
export function cut(shown: string): string {
  const characters = Array.from(shown);
  return characters.length <= LONGEST_SHOWN ? shown : `${characters.slice(0, LONGEST_SHOWN).join('')}...`;
}

/** A value as a message repeats it: quoted when it is text, cut when it is long. */
export function show(value: string | bigint): string {
  return cut(typeof value === 'string' ? repr(value) : String(value));
}

/** Python's `{:g}` of a number. */
export function general(value: number): string {
  if (value === 0) return Object.is(value, -0) ? '-0' : '0';
  const [digits, power] = value.toExponential(5).split('e');
  const exponent = Number(power);
  const trim = (text: string): string => (text.includes('.') ? text.replace(/\.?0+$/, '') : text);
  if (exponent >= -4 && exponent < 6) return trim(value.toFixed(5 - exponent));
  const size = String(Math.abs(exponent)).padStart(2, '0');
  return `${trim(digits)}e${exponent < 0 ? '-' : '+'}${size}`;
}

/** The shortest text that Python reads back as the same number, without a trailing `.0`. */
export function shortest(value: number): string {
  const size = Math.abs(value);
  if (value === 0 || (size >= 1e-4 && size < 1e16)) return Object.is(value, -0) ? '-0' : String(value);
  const [digits, power] = value.toExponential().split('e');
  return `${digits}e${power[0]}${power.slice(1).padStart(2, '0')}`;
}

/** The number of characters, as Python counts them, before an index of UTF-16 units. */
export function characters(line: string, index: number): number {
  return Array.from(line.slice(0, index)).length;
}
