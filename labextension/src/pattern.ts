/** Whether Python's `re` would compile a pattern, and what it would say if not. */

import { repr } from './text';

const DIGITS = /[0-9]/;
const OCTAL = /[0-7]/;
const HEX = /[0-9a-fA-F]/;
const LETTER = /[A-Za-z]/;
const IDENTIFIER = /^[\p{XID_Start}_]\p{XID_Continue}*$/u;
const LENGTHS: Record<string, number> = { x: 2, u: 4, U: 8 };

class PatternError extends Error {}

type Item = 'at' | 'repeat' | 'other';
type Extension = 'nothing' | 'reference' | 'named' | 'plain';

/** What is wrong with a Python regular expression, or empty. */
export function patternProblem(pattern: string): string {
  try {
    const parser = new Parser(Array.from(pattern));
    parser.alternatives();
    if (parser.next !== null) throw parser.error('unbalanced parenthesis');
  } catch (error) {
    if (error instanceof PatternError) return error.message;
    throw error;
  }
  return '';
}

class Parser {
  next: string | null = null;
  private index = 0;
  private groups = 0;
  private readonly open = new Set<number>();
  private readonly names = new Map<string, number>();

  constructor(private readonly source: string[]) {
    this.advance();
  }

  error(message: string, back = 0): PatternError {
    const at = this.tell() - back;
    const before = this.source.slice(0, at);
    const line = before.filter(char => char === '\n').length + 1;
    const column = at - before.lastIndexOf('\n');
    const place = this.source.includes('\n') ? ` (line ${line}, column ${column})` : '';
    return new PatternError(`${message} at position ${at}${place}`);
  }

  alternatives(): void {
    do this.branch();
    while (this.match('|'));
  }

  private tell(): number {
    return this.index - (this.next === null ? 0 : this.next.length === 1 ? 1 : Array.from(this.next).length);
  }

  private advance(): void {
    if (this.index >= this.source.length) {
      this.next = null;
      return;
    }
    this.next = this.source[this.index++];
    if (this.next !== '\\') return;
    if (this.index >= this.source.length) {
      throw new PatternError(`bad escape (end of pattern) at position ${this.source.length - 1}`);
    }
    this.next += this.source[this.index++];
  }

  private get(): string | null {
    const taken = this.next;
    this.advance();
    return taken;
  }

  private match(wanted: string): boolean {
    if (this.next !== wanted) return false;
    this.advance();
    return true;
  }

  private while(limit: number, allowed: RegExp): string {
    let taken = '';
    while (taken.length < limit && this.next !== null && this.next.length === 1 && allowed.test(this.next)) {
      taken += this.get();
    }
    return taken;
  }

  private branch(): void {
    let last: Item | null = null;
    while (this.next !== null && this.next !== '|' && this.next !== ')') {
      const taken = this.get() as string;
      if (taken[0] === '\\') last = this.escape(taken);
      else if (taken === '[') last = this.set();
      else if ('*+?{'.includes(taken)) last = this.repeat(taken, last);
      else if (taken === '(') last = this.group() ?? last;
      else last = taken === '^' || taken === '$' ? 'at' : 'other';
    }
  }

  private repeat(taken: string, last: Item | null): Item {
    const here = this.tell();
    if (taken === '{' && !this.bounds(here)) return 'other';
    if (last === null || last === 'at') throw this.error('nothing to repeat', this.tell() - here + 1);
    if (last === 'repeat') throw this.error('multiple repeat', this.tell() - here + 1);
    if (!this.match('?')) this.match('+');
    return 'repeat';
  }

  /** Read what follows `{`; false if it is a plain brace. */
  private bounds(here: number): boolean {
    if (this.next === '}') return false;
    const low = this.while(Infinity, DIGITS);
    const high = this.match(',') ? this.while(Infinity, DIGITS) : low;
    if (!this.match('}')) {
      this.index = here;
      this.advance();
      return false;
    }
    if (low && high && BigInt(high) < BigInt(low)) {
      throw this.error('min repeat greater than max repeat', this.tell() - here);
    }
    return true;
  }

  private set(): Item {
    const here = this.tell() - 1;
    const unfinished = (): PatternError => this.error('unterminated character set', this.tell() - here);
    this.match('^');
    for (let empty = true; ; empty = false) {
      const taken = this.get();
      if (taken === null) throw unfinished();
      if (taken === ']' && !empty) return 'other';
      const [low, lowText] = this.member(taken);
      if (!this.match('-')) continue;
      const that = this.get();
      if (that === null) throw unfinished();
      if (that === ']') return 'other';
      const [high, highText] = this.member(that);
      if (low === null || high === null || high < low) {
        const length = Array.from(lowText).length + 1 + Array.from(highText).length;
        throw this.error(`bad character range ${lowText}-${highText}`, length);
      }
    }
  }

  /** The code of a member of a set, or null for a class such as `\d`; and its text. */
  private member(taken: string): [number | null, string] {
    if (taken[0] !== '\\') return [taken.codePointAt(0) as number, taken];
    if ('dDsSwW'.includes(taken[1])) return [null, taken];
    const simple = 'abfnrtv\\'.indexOf(taken[1]);
    if (simple >= 0) return [[7, 8, 12, 10, 13, 9, 11, 92][simple], taken];
    if (taken[1] in LENGTHS) {
      const whole = this.numbered(taken);
      return [parseInt(whole.slice(2), 16), whole];
    }
    if (OCTAL.test(taken[1])) {
      const whole = taken + this.while(2, OCTAL);
      return [parseInt(whole.slice(1), 8), whole];
    }
    if (LETTER.test(taken[1]) && taken[1] !== 'N') throw this.error(`bad escape ${taken}`, taken.length);
    if (DIGITS.test(taken[1])) throw this.error(`bad escape ${taken}`, taken.length);
    return [taken.codePointAt(1) as number, taken];
  }

  private numbered(taken: string): string {
    const length = LENGTHS[taken[1]];
    const whole = taken + this.while(length, HEX);
    if (whole.length !== length + 2) throw this.error(`incomplete escape ${whole}`, whole.length);
    return whole;
  }

  private escape(taken: string): Item {
    const letter = taken.slice(1);
    if ('AbBZ'.includes(letter)) return 'at';
    if ('dDsSwWafnrtv\\'.includes(letter)) return 'other';
    if (letter in LENGTHS) {
      this.numbered(taken);
      return 'other';
    }
    if (letter === '0') this.while(2, OCTAL);
    else if (DIGITS.test(letter)) this.reference(taken);
    else if (LETTER.test(letter) && letter !== 'N') throw this.error(`bad escape ${taken}`, taken.length);
    return 'other';
  }

  private reference(taken: string): void {
    let whole = taken;
    if (this.next !== null && DIGITS.test(this.next)) {
      whole += this.get();
      if (OCTAL.test(whole[1]) && OCTAL.test(whole[2]) && this.next !== null && OCTAL.test(this.next)) {
        this.get();
        return;
      }
    }
    const group = Number(whole.slice(1));
    if (group > this.groups) throw this.error(`invalid group reference ${group}`, whole.length - 1);
    if (this.open.has(group)) throw this.error('cannot refer to an open group', whole.length);
  }

  /** Read what follows `(`; null for a comment or flags, which leave nothing to repeat. */
  private group(): Item | null {
    const start = this.tell() - 1;
    let number = 0;
    if (this.match('?')) {
      const kind = this.extension(start);
      if (kind === 'nothing') return null;
      if (kind === 'reference') return 'other';
      if (kind === 'named') number = ++this.groups;
    } else {
      number = ++this.groups;
    }
    if (number) this.open.add(number);
    this.alternatives();
    if (!this.match(')')) throw this.error('missing ), unterminated subpattern', this.tell() - start);
    this.open.delete(number);
    return 'other';
  }

  private extension(start: number): Extension {
    const char = this.get();
    if (char === null) throw this.error('unexpected end of pattern');
    if (char === 'P') return this.python();
    if (':=!>'.includes(char)) return 'plain';
    if (char === '(') {
      this.until(')', 'missing ), unterminated name');
      return 'plain';
    }
    if (char === '#') return this.comment(start);
    if (char === '<') {
      const side = this.get();
      if (side === null) throw this.error('unexpected end of pattern');
      if (side !== '=' && side !== '!') throw this.error(`unknown extension ?<${side}`, side.length + 2);
      return 'plain';
    }
    if (!/[aiLmsux-]/.test(char)) throw this.error(`unknown extension ?${char}`, Array.from(char).length + 1);
    this.while(Infinity, /[aiLmsux-]/);
    return this.match(')') ? 'nothing' : (this.match(':'), 'plain');
  }

  private comment(start: number): Extension {
    for (;;) {
      const taken = this.get();
      if (taken === null) throw this.error('missing ), unterminated comment', this.tell() - start);
      if (taken === ')') return 'nothing';
    }
  }

  private python(): Extension {
    if (this.match('<')) {
      this.names.set(this.name('>'), this.groups + 1);
      return 'named';
    }
    if (this.match('=')) {
      const name = this.name(')');
      const group = this.names.get(name);
      const length = Array.from(name).length + 1;
      if (group === undefined) throw this.error(`unknown group name ${repr(name)}`, length);
      if (this.open.has(group)) throw this.error('cannot refer to an open group', length);
      return 'reference';
    }
    const char = this.get();
    if (char === null) throw this.error('unexpected end of pattern');
    throw this.error(`unknown extension ?P${char}`, Array.from(char).length + 2);
  }

  private name(close: string): string {
    const name = this.until(close, `missing ${close}, unterminated name`);
    const length = Array.from(name).length + 1;
    if (!IDENTIFIER.test(name)) throw this.error(`bad character in group name ${repr(name)}`, length);
    const [group, was] = [this.groups + 1, this.names.get(name)];
    if (close === '>' && was !== undefined) {
      const message = `redefinition of group name ${repr(name)} as group ${group}; was group ${was}`;
      throw this.error(message, length);
    }
    return name;
  }

  private until(close: string, message: string): string {
    let name = '';
    for (;;) {
      const taken = this.get();
      if (taken === close && name) return name;
      if (taken === close) throw this.error('missing group name', 1);
      if (taken === null) throw this.error(name ? message : 'missing group name', Array.from(name).length);
      name += taken;
    }
  }
}
