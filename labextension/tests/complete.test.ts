/** What is offered where, and which documents are configurations. */

import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import * as path from 'node:path';
import { test } from 'node:test';

import { check } from '../src/check';
import { cursorAt } from '../src/cursor';
import { readDeclarations } from '../src/declarations';
import { aboutOption, aboutSection, factsText } from '../src/explain';
import { findTarget, placeOf } from '../src/target';

const file = path.resolve(__dirname, '../../../ptq_lab/labextension/declarations.json');
const declared = readDeclarations(readFileSync(file, 'utf8'));

test('a cursor is in a section, a key or a value', () => {
  const text = '%%quantize m\n[common_quant_param]\nbit_num = 4 # four\n# nothing\n"quant_type"=x';
  const at = (part: string): object => cursorAt(text, text.indexOf(part) + 1, 1);
  assert.deepEqual(at('common'), { part: 'section', section: 'common_quant_param', key: '', from: 14, to: 32 });
  assert.deepEqual(at('bit_num'), { part: 'key', section: 'common_quant_param', key: 'bit_num', from: 34, to: 41 });
  assert.deepEqual(at('4'), { part: 'value', section: 'common_quant_param', key: 'bit_num', from: 44, to: 45 });
  assert.equal((at('# nothing') as { part: string }).part, 'none');
  assert.equal((at('four') as { part: string }).part, 'none');
  assert.equal((at('%%quantize') as { part: string }).part, 'none');
  assert.equal((cursorAt(text, text.length, 1) as { key: string }).key, 'quant_type');
});

test('a cell is a configuration by its first line, a file by a section of ours, markdown never', () => {
  const cell = placeOf({ mimeType: 'text/x-ipython', type: 'code' });
  assert.deepEqual(findTarget(['', '%%quantize m.onnx', 'x'], cell), { kind: 'magic', before: 2 });
  assert.deepEqual(findTarget(['%%writefile -a a/b.cfg'], cell), { kind: 'writefile', before: 1 });
  assert.equal(findTarget(['%%quantizer', '[common_quant_param]'], cell), null);
  assert.equal(findTarget(['[common_quant_param]'], cell), null);
  assert.equal(findTarget(['%%writefile a.py'], cell), null);
  const plain = placeOf({ mimeType: 'text/x-ini' });
  assert.deepEqual(findTarget(['# x', ' [ptq_lab.mixed_bit]'], plain), { kind: 'file', before: 0 });
  assert.equal(findTarget(['[metadata]', 'x=1'], plain), null);
  assert.equal(findTarget(['[common_quant_param]'], placeOf({ mimeType: 'text/x-python' })), null);
  assert.equal(findTarget(['%%quantize'], placeOf({ mimeType: 'text/x-ipythongfm', type: 'markdown' })), null);
});

test('every option and section has an explanation with its default and what is allowed', () => {
  for (const [name, section] of Object.entries(declared.sections)) {
    assert.ok(aboutSection(declared, name)?.what);
    for (const [key, option] of Object.entries(section.options)) {
      const told = factsText(aboutOption(declared, name, key) as NonNullable<ReturnType<typeof aboutOption>>);
      for (const part of [option.what, option.when, option.allowed, option.defaultText || 'unset', option.ignored]) {
        assert.ok(told.includes(part), `${key}: ${part}`);
      }
    }
  }
});

test('every template is free of errors', () => {
  for (const { text } of Object.values(declared.templates)) {
    assert.deepEqual(check(declared, text).filter(problem => problem.level === 'error'), []);
  }
});
