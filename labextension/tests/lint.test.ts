/** What a fix does to the text. */

import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import * as path from 'node:path';
import { test } from 'node:test';

import { EditorState, type TransactionSpec } from '@codemirror/state';
import type { EditorView } from '@codemirror/view';

import { readDeclarations } from '../src/declarations';
import { diagnose } from '../src/lint';

const file = path.resolve(__dirname, '../../../ptq_lab/labextension/declarations.json');
const declared = readDeclarations(readFileSync(file, 'utf8'));

/** The name of the fix of the first problem that has one, and the text after it; empty if there is none. */
function fixed(text: string): [string, string] {
  const state = EditorState.create({ doc: text });
  const found = diagnose(declared, state.doc, { kind: 'file', before: 0 }).find(each => each.actions?.length);
  if (!found?.actions) return ['', text];
  let after = text;
  const view = { state, dispatch: (spec: TransactionSpec) => (after = state.update(spec).newDoc.toString()) };
  found.actions[0].apply(view as unknown as EditorView, found.from, found.to);
  return [found.actions[0].name, after];
}

test('a misspelt key is renamed, unless its section has the right one already: then its line goes', () => {
  const head = '[common_quant_param]\nquant_type=WEIGHT_QUANT\n';
  assert.deepEqual(fixed(`${head}bit_nums=8\n`), ['Replace with bit_num', `${head}bit_num=8\n`]);
  assert.deepEqual(fixed(`${head}bit_num=4\nbit_nums=8\n`), ['Remove this line', `${head}bit_num=4\n`]);
  assert.deepEqual(fixed(`${head}bit_nums=8\nbit_num=4`), ['Remove this line', `${head}bit_num=4`]);
  assert.deepEqual(fixed(`${head}bit_num=4\nbit_nums=8`), ['Remove this line', `${head}bit_num=4`]);
});

test('a misspelt value is replaced, whatever keys there are', () => {
  const text = '[common_quant_param]\nquant_type=weight_quant\n';
  assert.deepEqual(fixed(text), ['Replace with WEIGHT_QUANT', text.replace('weight_quant', 'WEIGHT_QUANT')]);
});

test('text behind a header gets no fix that would leave half of it', () => {
  const text = '[common_quant_param] bit_num=4\n[ptq_lab]\nencode=entropy\n';
  assert.deepEqual(fixed(text), ['', text]);
});
