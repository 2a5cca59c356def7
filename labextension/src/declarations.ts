/** What `ptq_lab.config.editor` writes: every section, option, rule and template there is. */

export type Level = 'error' | 'warning' | 'note';
export type Needs = Record<string, unknown[]>;
export type Address = [section: string, key: string];

/** A kind of value: its name and its fields. */
export interface Kind {
  type: string;
  low?: number | null;
  high?: number | null;
  low_open?: boolean;
  high_open?: boolean;
  values?: string[];
  aliases?: Record<string, string>;
  elsewhere?: Record<string, string>;
  what?: string;
  may_be_empty?: boolean;
  each?: Kind;
  check?: string | null;
  form?: string;
}

export interface Option {
  kind: Kind;
  allowed: string;
  what: string;
  when: string;
  source: string;
  ignored: string;
  usedWith: Needs;
  noEffect: string;
  default: unknown;
  defaultText: string;
  example: string;
  implemented: boolean | unknown[];
  soFar: string;
  implementedFor: string[];
}

export interface Section {
  about: string;
  usedWith: Needs;
  free: boolean;
  options: Record<string, Option>;
}

/** One thing that must be so: how a value is looked at, whose, and what it is compared with. */
export type Condition = [operation: string, section: string, key: string, ...values: unknown[]];

/** A rule as data, or the name of one that is a function and the options it reads. */
export type Rule =
  | { name: string; reads: Address[] }
  | { level: Level | 'samples'; section: string; key?: string; message: string; hint?: string; when: Condition[] };

export interface Declarations {
  sections: Record<string, Section>;
  pins: {
    section: string;
    about: string;
    keys: string;
    usedWith: Needs;
    option: Option;
    example: Record<string, number>;
  };
  foreign: Record<string, string[] | null>;
  models: string;
  prefix: string;
  maxLines: number;
  rules: Rule[];
  templates: Record<string, { title: string; text: string }>;
}

/** One thing the author of a configuration should know; columns count UTF-16 units from 1, lines from 1. */
export interface Problem {
  message: string;
  level: Level;
  line: number;
  column: number;
  endColumn: number;
  section: string;
  key: string;
  hint: string;
  suggestion: string;
}

/** The declaration of an option, or undefined. */
export function optionOf(declared: Declarations, section: string, key: string): Option | undefined {
  if (section === declared.pins.section) return declared.pins.option;
  const options = own(declared.sections, section)?.options;
  return options && own(options, key);
}

/** A property of the object itself: `constructor` is no section. */
export function own<T>(table: Record<string, T>, name: string): T | undefined {
  return Object.prototype.hasOwnProperty.call(table, name) ? table[name] : undefined;
}

/** Names of all sections that are used here. */
export function sectionNames(declared: Declarations): string[] {
  return [...Object.keys(declared.sections), declared.pins.section];
}

/** One string per option, for tables. */
export function address(section: string, key: string): string {
  return `${section}\n${key}`;
}

const EMPTY: Omit<Option, 'kind' | 'allowed' | 'what' | 'when' | 'source'> = {
  ignored: '',
  usedWith: {},
  noEffect: '',
  default: null,
  defaultText: '',
  example: '',
  implemented: true,
  soFar: '',
  implementedFor: []
};

/** The declarations as they are written, with what goes without saying filled in. */
export function readDeclarations(text: string): Declarations {
  const read = JSON.parse(text) as Declarations;
  const fill = (option: Option): Option => ({ ...EMPTY, ...option });
  for (const section of Object.values(read.sections)) {
    section.options = Object.fromEntries(Object.entries(section.options).map(([key, each]) => [key, fill(each)]));
  }
  read.pins.option = fill(read.pins.option);
  return read;
}
