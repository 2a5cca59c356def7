/** Both checkers, Python's and this one, find the same problems at the same places. */

import { strict as assert } from 'node:assert';
import { readdirSync, readFileSync } from 'node:fs';
import * as path from 'node:path';
import { test } from 'node:test';

import { check } from '../src/check';
import { type Problem, readDeclarations } from '../src/declarations';
import { KINDS } from '../src/kinds';
import { FUNCTIONS, KNOWN_OPERATIONS } from '../src/rules';
import { characters } from '../src/text';

const ROOT = path.resolve(__dirname, '../../..');
const CORPUS = path.join(ROOT, 'tests/config/corpus');
const declared = readDeclarations(
  readFileSync(path.join(ROOT, 'ptq_lab/labextension/declarations.json'), 'utf8')
);
const expected = JSON.parse(readFileSync(path.join(CORPUS, 'expected.json'), 'utf8')) as Record<string, object[]>;

/** A problem as Python writes it, its columns in characters. */
function inPython(problem: Problem, lines: string[]): object {
  const { endColumn, column, ...rest } = problem;
  const line = lines[problem.line - 1] ?? '';
  const count = (at: number): number => (at ? characters(line, at - 1) + 1 : 0);
  return { ...rest, column: count(column), end_column: count(endColumn) };
}

test('the corpus holds at least 60 configurations, and a list of problems for each', () => {
  const files = readdirSync(CORPUS).filter(name => name.endsWith('.cfg'));
  assert.ok(files.length >= 60);
  assert.deepEqual(files.sort(), Object.keys(expected).sort());
});

for (const [name, problems] of Object.entries(expected)) {
  test(`${name}: the problems are Python's`, () => {
    const text = readFileSync(path.join(CORPUS, name), 'utf8');
    const lines = text.replace(/^\ufeff/, '').replace(/\r\n?/g, '\n').split('\n');
    assert.deepEqual(
      check(declared, text).map(problem => inPython(problem, lines)),
      problems
    );
  });
}

test('every rule, operation and kind that the declarations name is known here', () => {
  const named = declared.rules.flatMap(rule => ('name' in rule ? rule.name : []));
  const operations = declared.rules.flatMap(rule => ('when' in rule ? rule.when : [])).map(([how]) => how);
  const kinds = Object.values(declared.sections).flatMap(group => Object.values(group.options));
  assert.deepEqual(named.sort(), Object.keys(FUNCTIONS).sort());
  assert.deepEqual([...new Set(operations)].filter(each => !KNOWN_OPERATIONS.includes(each)), []);
  assert.deepEqual([...new Set(kinds.map(each => each.kind.type))].filter(each => !KINDS.includes(each)), []);
});

test('a configuration of 5,000 lines is checked in less than a second', () => {
  const lines = ['[common_quant_param]', 'quant_type=WEIGHT_QUANT'];
  for (let index = 0; index < 10000; index++) lines.push(`bit_nums${index % 7}=${index}`);
  const start = performance.now();
  assert.ok(check(declared, lines.join('\n')).length > 100);
  assert.ok(performance.now() - start < 1000);
});
