/** What there is to say about a section or an option, as facts: for hovers and the completion's documentation. */

import { Declarations, Needs, optionOf, own } from './declarations';

export interface Facts {
  title: string;
  what: string;
  rows: [label: string, text: string][];
}

function when(needs: Needs): string {
  return Object.entries(needs)
    .map(([key, values]) => `${key} is ${values.join(' or ')}`)
    .join(' and ');
}

function filled(rows: [string, string][]): [string, string][] {
  return rows.filter(([, text]) => text);
}

/** Facts about a section, or null if there is none of this name. */
export function aboutSection(declared: Declarations, name: string): Facts | null {
  const title = `[${name}]`;
  if (name === declared.pins.section) {
    const { about, usedWith, keys } = declared.pins;
    return { title, what: about, rows: filled([['Keys', keys], ['Used when', when(usedWith)]]) };
  }
  const section = own(declared.sections, name);
  if (section) {
    const rows: [string, string][] = [['Used when', when(section.usedWith)], ['Keys', Object.keys(section.options).join(', ')]];
    return { title, what: section.about, rows: filled(rows) };
  }
  const foreign = own(declared.foreign, name);
  if (foreign === undefined) return null;
  return { title, what: 'Belongs to another tool; kept, not used here.', rows: filled([['Keys', foreign?.join(', ') ?? '']]) };
}

/** Facts about an option, or null if there is none of this name. */
export function aboutOption(declared: Declarations, section: string, key: string): Facts | null {
  const option = optionOf(declared, section, key);
  if (!option) return null;
  const also = Object.entries(option.kind.aliases ?? {}).map(([alias, word]) => `${alias} for ${word}`);
  return {
    title: key,
    what: option.what,
    rows: filled([
      ['When', option.when],
      ['Default', option.defaultText || 'unset'],
      ['Allowed', [option.allowed, ...also].join('; also ')],
      ['Ignored when', option.ignored],
      ['So far', soFar(option.implemented, option.implementedFor)],
      ['Source', option.source]
    ])
  };
}

function soFar(implemented: boolean | unknown[], everywhere: string[]): string {
  if (implemented === true) return '';
  const values = implemented ? `the default and ${implemented.join(', ')}` : 'only the default';
  return `${values} work${everywhere.length ? `; with ${everywhere.join(' or ')} all do` : ''}`;
}

/** Facts as plain text. */
export function factsText(facts: Facts): string {
  return [facts.what, ...facts.rows.map(([label, text]) => `${label}: ${text}`)].join('\n\n');
}
