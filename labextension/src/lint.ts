/** Problems while typing: what `ptq-lab check` says, at the places it says, with a fix where there is one. */

import { type Action, type Diagnostic, linter } from '@codemirror/lint';
import type { Extension, Text } from '@codemirror/state';
import { type EditorView, keymap } from '@codemirror/view';

import { check } from './check';
import { address, type Declarations, own, type Problem } from './declarations';
import { parseIni } from './ini';
import { hasSection, type Target } from './target';

const DELAY = 40; // milliseconds from the last key press to the check
const SEVERITY = { error: 'error', warning: 'warning', note: 'info' } as const;

/** A problem as one line, as Python prints it. */
export function sentence(problem: Problem): string {
  const section = problem.section ? `[${problem.section}] ` : '';
  const key = problem.key ? `${problem.key}: ` : '';
  return `${section}${key}${problem.message}${problem.hint ? `; ${problem.hint}` : ''}`;
}

/** The diagnostics of a document. */
export function diagnose(declared: Declarations, doc: Text, target: Target): Diagnostic[] {
  const first = target.before + 1; // the number of the line where the configuration starts
  const text = first > doc.lines ? '' : doc.sliceString(doc.line(first).from);
  if (target.kind === 'writefile' && !hasSection(text)) return []; // some other program's file
  const mark = text.startsWith('\ufeff') ? 1 : 0;
  const problems = check(declared, text);
  const written = problems.some(problem => problem.suggestion) ? parseIni(declared, text).entries : [];
  const keys = new Set(written.map(entry => address(entry.section, entry.key)));
  return problems.map(problem => {
    const number = Math.min(problem.line ? first + problem.line - 1 : Math.max(target.before, 1), doc.lines);
    const line = doc.line(number);
    const shift = problem.line === 1 ? mark : 0;
    const column = (at: number): number => Math.min(line.from + at - 1 + shift, line.to);
    const from = problem.column ? column(problem.column) : line.from;
    const to = problem.column ? Math.max(from, column(problem.endColumn)) : line.to;
    return {
      from,
      to,
      severity: SEVERITY[problem.level],
      source: 'ptq-lab',
      message: sentence(problem),
      actions: fixes(declared, problem, keys)
    };
  });
}

/** What repairs a problem: what is meant, but no second line for a key that its section has already. */
function fixes(declared: Declarations, problem: Problem, keys: Set<string>): Action[] {
  const { section, key, suggestion } = problem;
  if (!suggestion) return [];
  const renames = key !== '' && own(own(declared.sections, section)?.options ?? {}, key) === undefined;
  return renames && keys.has(address(section, suggestion)) ? [REMOVAL] : [replacement(suggestion)];
}

const REMOVAL: Action = {
  name: 'Remove this line',
  apply: (view, from) => {
    const { doc } = view.state;
    const line = doc.lineAt(from);
    // The last line has no break behind it, so the one before it goes.
    const start = line.to === doc.length && line.number > 1 ? line.from - 1 : line.from;
    view.dispatch({ changes: { from: start, to: Math.min(line.to + 1, doc.length) }, userEvent: 'delete.fix' });
  }
};

function replacement(suggestion: string): Action {
  return {
    name: `Replace with ${suggestion}`,
    apply: (view, from, to) => view.dispatch({ changes: { from, to, insert: suggestion }, userEvent: 'input.fix' })
  };
}

/** Apply the fix at the cursor, if there is one. */
async function fixAtCursor(declarations: Promise<Declarations>, target: Target, view: EditorView): Promise<void> {
  const at = view.state.selection.main.head;
  const line = view.state.doc.lineAt(at);
  const found = diagnose(await declarations, view.state.doc, target).filter(each => each.actions?.length);
  const here = found.find(each => each.from <= at && at <= each.to);
  const fix = here ?? found.find(each => each.from >= line.from && each.to <= line.to);
  fix?.actions?.[0].apply(view, fix.from, fix.to);
}

/** Check a document while it is edited; Alt-. applies the fix at the cursor. */
export function lint(declarations: Promise<Declarations>, target: Target): Extension {
  const run = (view: EditorView): boolean => {
    void fixAtCursor(declarations, target, view);
    return true;
  };
  return [
    linter(async view => diagnose(await declarations, view.state.doc, target), { delay: DELAY }),
    keymap.of([{ key: 'Alt-.', run }])
  ];
}
