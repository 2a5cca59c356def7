/** Everything that is wrong with a configuration: what `ptq-lab check` says about its text. */

import { address, Address, Declarations, Option, optionOf, own, Problem, sectionNames } from './declarations';
import { Entry, Header, Ini, keepsHash, parseIni } from './ini';
import { checkedName, readValue, Value } from './kinds';
import { Rejected } from './rejected';
import { findings, unsupported } from './rules';
import { closest } from './suggest';
import { bare, show, strip } from './text';

const TYPE: Address = ['common_quant_param', 'quant_type'];
const BITS = address('common_quant_param', 'bit_num');

type Place = Pick<Problem, 'line' | 'column' | 'endColumn'>;

const NOWHERE: Place = { line: 0, column: 0, endColumn: 0 };

/** What has been understood: values that could be read, and where everything stands. */
export class Config {
  readonly values = new Map<string, Value>();
  readonly broken = new Set<string>();
  readonly places = new Map<string, Place>();
  readonly foreign: { name: string; keys: string[] }[] = [];

  constructor(readonly declared: Declarations) {}

  /** The value of an option, its default if it is not given; null or an empty list if it has none. */
  value(section: string, key: string): unknown {
    return this.values.get(address(section, key)) ?? optionOf(this.declared, section, key)?.default ?? null;
  }

  given(section: string, key: string): boolean {
    if (key) return this.values.has(address(section, key));
    return [...this.values.keys()].some(name => name.startsWith(address(section, '')));
  }

  /** Names with bits, in the order of the text. */
  get pins(): [string, number][] {
    const start = address(this.declared.pins.section, '');
    const found = [...this.values].filter(([name]) => name.startsWith(start));
    return found.map(([name, bits]) => [name.slice(start.length), bits as number]);
  }

  located(problem: Partial<Problem> & Pick<Problem, 'level' | 'section' | 'message'>): Problem {
    const place = this.places.get(address(problem.section, problem.key ?? '')) ?? NOWHERE;
    return { key: '', hint: '', suggestion: '', ...place, ...problem };
  }
}

/** Every problem of a configuration, of every level, in the order of its text. */
export function check(declared: Declarations, text: string): Problem[] {
  const refused = refusal(text);
  if (refused) return [refused];
  const ini = parseIni(declared, text);
  const reading = new Reading(declared, ini);
  reading.readHeaders();
  for (const entry of reading.lastOnes()) reading.readEntry(entry);
  const problems = ordered([...reading.problems, ...findings(reading.config)]);
  if (problems.some(problem => problem.level === 'error')) return problems;
  return [...problems, ...ordered(unsupported(reading.config))];
}

function refusal(text: string): Problem | null {
  const found = { ...NOWHERE, level: 'error' as const, section: '', key: '', hint: '', suggestion: '' };
  const nul = text.indexOf('\0');
  if (nul >= 0) {
    const line = text.slice(0, nul).split('\n').length;
    return { ...found, line, message: 'holds a NUL byte, so it is no text' };
  }
  if (strip(text.replace(/^\ufeff/, ''))) return null;
  const hint = 'write at least [common_quant_param] and quant_type';
  return { ...found, message: 'the configuration is empty', hint };
}

/** Problems in the order of the text, those without a place last, none twice. */
function ordered(problems: Problem[]): Problem[] {
  const different = new Map(problems.map(problem => [identity(problem), problem]));
  return [...different.values()].sort(
    (left, right) => (left.line || Infinity) - (right.line || Infinity) || left.column - right.column || 0
  );
}

function identity(problem: Problem): string {
  const { line, column, endColumn, level, section, key, message, hint } = problem;
  return [line, column, endColumn, level, section, key, message, hint].join('\n');
}

function meant(near: string): string {
  return near ? `did you mean ${near}?` : '';
}

class Reading {
  readonly problems: Problem[];
  readonly config: Config;
  private readonly untyped: boolean;
  private readonly names: string[];
  private readonly entries: Entry[];

  constructor(
    private readonly declared: Declarations,
    private readonly ini: Ini
  ) {
    this.problems = [...ini.problems];
    this.config = new Config(declared);
    const first = ini.headers[0]?.line ?? Infinity;
    this.entries = ini.entries.filter(entry => entry.line > first); // what stands before has its warning
    this.untyped = !this.entries.some(entry => entry.section === TYPE[0] && entry.key === TYPE[1]);
    this.names = sectionNames(declared);
  }

  readHeaders(): void {
    const { entries } = this;
    const { headers } = this.ini;
    headers.forEach((header, index) => {
      const name = header.name;
      const { line, column, endColumn } = header;
      if (!this.config.places.has(address(name, ''))) {
        this.config.places.set(address(name, ''), { line, column, endColumn });
        if (!this.names.includes(name)) this.problems.push(this.aboutSection(header));
      }
      if (this.names.includes(name) || name.startsWith(`${this.declared.prefix}.`)) return;
      const until = headers[index + 1]?.line ?? Infinity;
      const inside = entries.filter(entry => entry.section === name && entry.line > line && entry.line < until);
      this.config.foreign.push({ name, keys: inside.map(entry => entry.key) });
    });
  }

  /** The entry of each key that counts, the last; the ones it replaces get a warning. */
  lastOnes(): Entry[] {
    const last = new Map<string, Entry>();
    const rest: Entry[] = [];
    for (const entry of this.entries) {
      if (entry.section === this.declared.models) {
        rest.push(entry);
        continue;
      }
      const name = address(entry.section, entry.key);
      const before = last.get(name);
      if (before) {
        const message = `is written again; this value wins over line ${before.line}`;
        this.atKey(entry, message, { level: 'warning' });
      }
      last.delete(name); // the order of names with bits counts: later ones win
      last.set(name, entry);
    }
    return [...last.values(), ...rest];
  }

  readEntry(entry: Entry): void {
    if (entry.section === this.declared.pins.section) {
      this.readPin(entry);
      return;
    }
    const group = own(this.declared.sections, entry.section);
    if (!group) {
      this.readForeign(entry);
      return;
    }
    const option = own(group.options, entry.key);
    if (option) this.readOption(entry, option);
    else this.unknown(entry);
  }

  private readPin(entry: Entry): void {
    if (!entry.key) {
      this.atKey(entry, "there is no name before '='");
      return;
    }
    try {
      checkedName(entry.key);
    } catch (error) {
      if (!(error instanceof Rejected)) throw error;
      this.atKey(entry, error.message, { hint: error.hint });
      return;
    }
    this.readOption(entry, this.declared.pins.option);
  }

  private readOption(entry: Entry, option: Option): void {
    const name = address(entry.section, entry.key);
    try {
      this.config.values.set(name, readValue(entry.text, option));
    } catch (error) {
      if (!(error instanceof Rejected)) throw error;
      this.config.broken.add(name);
      // Without quant_type the original does not look at the range of bit_num.
      const level = this.untyped && name === BITS && error.outOfRange ? 'warning' : 'error';
      this.atValue(entry, error.message, { level, hint: error.hint, suggestion: error.suggestion });
      return;
    }
    const { line, column, endColumn } = entry;
    if (!this.config.places.has(name)) this.config.places.set(name, { line, column, endColumn });
    const written = bare(entry.text);
    const canonical = own(option.kind.aliases ?? {}, written);
    if (canonical) {
      this.atValue(entry, `${written} is read as ${canonical}`, { level: 'note', suggestion: canonical });
    }
    const hash = keepsHash(option.kind) ? entry.text.indexOf(' #') : -1;
    if (hash >= 0) {
      const message = `${show(entry.text.slice(hash + 1))} is part of the value`;
      this.atValue(entry, message, { level: 'warning', hint: 'a comment on a path needs a line of its own' });
    }
  }

  private unknown(entry: Entry): void {
    const group = this.declared.sections[entry.section];
    if (group.free) {
      this.atKey(entry, 'unknown option, not used', { level: 'note' });
      this.config.foreign.push({ name: entry.section, keys: [entry.key] });
      return;
    }
    if (!entry.key) {
      this.atKey(entry, "there is no key before '='");
      return;
    }
    const known = Object.keys(group.options);
    const near = closest(entry.key, known);
    const home = Object.keys(this.declared.sections).find(name =>
      own(this.declared.sections[name].options, entry.key)
    );
    if (home) this.atKey(entry, 'unknown option here', { hint: `it belongs into [${home}]` });
    else if (near) this.atKey(entry, 'unknown option', { hint: meant(near), suggestion: near });
    else this.atKey(entry, 'unknown option', { hint: `known here: ${known.join(', ')}` });
  }

  private readForeign(entry: Entry): void {
    const keys = own(this.declared.foreign, entry.section);
    if (!keys || keys.includes(entry.key)) return;
    const near = closest(entry.key, keys);
    const hint = meant(near) || `known here: ${keys.join(', ')}`;
    this.atKey(entry, 'unknown option', { hint, suggestion: near });
  }

  private aboutSection(header: Header): Problem {
    const { name, line, column, endColumn } = header;
    const found = { section: name, key: '', hint: '', suggestion: '', line, column, endColumn };
    if (own(this.declared.foreign, name) !== undefined) {
      return { ...found, level: 'note', message: 'belongs to another tool and is not used here' };
    }
    // A header with more behind it has a hint of its own, and one that is not closed cannot be replaced by its name.
    const near = name.includes(']') ? '' : closest(name, [...this.names, ...Object.keys(this.declared.foreign)]);
    const suggestion = header.closed ? near : '';
    const ours = name.startsWith(`${this.declared.prefix}.`);
    const message = ours ? 'unknown section' : 'unknown section, not used';
    return { ...found, level: ours ? 'error' : 'warning', message, hint: meant(near), suggestion };
  }

  private atKey(entry: Entry, message: string, more: Partial<Problem> = {}): void {
    const place = { line: entry.line, column: entry.keyColumn, endColumn: entry.keyEndColumn };
    this.report(entry, message, place, more);
  }

  private atValue(entry: Entry, message: string, more: Partial<Problem> = {}): void {
    this.report(entry, message, { line: entry.line, column: entry.column, endColumn: entry.endColumn }, more);
  }

  private report(entry: Entry, message: string, place: Place, more: Partial<Problem>): void {
    const { section, key } = entry;
    this.problems.push({ level: 'error', hint: '', suggestion: '', message, section, key, ...place, ...more });
  }
}
