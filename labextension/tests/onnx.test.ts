/** The reader of models steps over weights, and says where a file is broken. */

import { strict as assert } from 'node:assert';
import { test } from 'node:test';

import { Corrupt, type Source, summarize } from '../src/onnx';

const encoder = new TextEncoder();

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))];
}
function bytes(number: number, content: ArrayLike<number>): number[] {
  return [...varint(number * 8 + 2), ...varint(content.length), ...Array.from(content)];
}
const text = (number: number, value: string): number[] => bytes(number, encoder.encode(value));
const whole = (number: number, value: number): number[] => [...varint(number * 8), ...varint(value)];

function port(name: string, shape: (number | string)[]): number[] {
  const dims = shape.flatMap(size => bytes(1, typeof size === 'number' ? whole(1, size) : text(2, size)));
  return [...text(1, name), ...bytes(2, bytes(1, [...whole(1, 1), ...bytes(2, dims)]))];
}

function tensor(name: string, dims: number[], type: number, raw: number): number[] {
  return [...bytes(1, dims.flatMap(varint)), ...whole(2, type), ...text(8, name), ...bytes(9, new Array(raw).fill(0))];
}

function model(graph: number[], ...more: number[][]): Uint8Array {
  return new Uint8Array([...whole(1, 8), ...text(2, 'test'), ...bytes(8, whole(2, 18)), ...more.flat(), ...bytes(7, graph)]);
}

interface Counted extends Source {
  bytes: number;
}

function source(data: Uint8Array, size = data.length): Counted {
  const made = {
    size,
    bytes: 0,
    read: async (from: number, to: number) => {
      const piece = data.subarray(from, to);
      made.bytes += piece.length;
      return piece;
    }
  };
  return made;
}

const MATMUL = [...text(1, 'x'), ...text(1, 'w'), ...text(4, 'MatMul')];

test('inputs, outputs, operators and parameters are counted; an initializer is no input', async () => {
  const graph = [
    ...bytes(1, MATMUL),
    ...bytes(5, tensor('w', [3, 4], 1, 48)),
    ...bytes(11, port('x', ['batch', 3])),
    ...bytes(11, port('w', [3, 4])),
    ...bytes(12, port('y', ['batch', 4]))
  ];
  const found = await summarize(source(model(graph)));
  assert.deepEqual(found.inputs, [{ name: 'x', type: 'float', shape: ['batch', '3'] }]);
  assert.deepEqual(found.outputs, [{ name: 'y', type: 'float', shape: ['batch', '4'] }]);
  assert.deepEqual(found.operators, [['MatMul', 1]]);
  assert.equal(found.parameters, 12);
  assert.deepEqual(found.opsets, [['', 18]]);
  assert.equal(found.quantizer, '');
});

test('weights larger than a piece are not read', async () => {
  const data = model([...bytes(5, tensor('w', [1024, 1024], 1, 4 << 20)), ...bytes(1, MATMUL)]);
  const counted = source(data);
  const found = await summarize(counted);
  assert.equal(found.parameters, 1 << 20);
  assert.ok(counted.bytes < 1 << 20, `${counted.bytes} bytes were read`);
});

test('the widths that ptq_lab wrote are shown by weight', async () => {
  const plan = bytes(14, [...text(1, 'ptq_lab.plan'), ...text(2, '{"w":[4,32],"v":[8,1]}')]);
  const found = await summarize(source(model(bytes(1, MATMUL), plan)));
  assert.equal(found.quantizer, 'ptq_lab');
  assert.deepEqual(found.layers, [
    { name: 'w', bits: '4', channels: '32' },
    { name: 'v', bits: '8', channels: '1' }
  ]);
});

test('codes of other tools are found by the operators that read them', async () => {
  const decode = [...text(1, 'w'), ...text(1, 's'), ...text(4, 'DequantizeLinear')];
  const found = await summarize(source(model([...bytes(1, decode), ...bytes(5, tensor('w', [3, 4], 3, 12))])));
  assert.equal(found.quantizer, 'another tool');
  assert.deepEqual(found.layers, [{ name: 'w', bits: '8', channels: '' }]);
});

for (const [what, data] of Object.entries({
  empty: new Uint8Array(0),
  zeros: new Uint8Array(100),
  text: encoder.encode('[common_quant_param]\nquant_type=WEIGHT_QUANT\n'),
  cut: model(bytes(1, MATMUL)).slice(0, -5),
  'a number without an end': new Uint8Array(20).fill(255)
})) {
  test(`a file that is no model is refused: ${what}`, async () => {
    await assert.rejects(summarize(source(data)), Corrupt);
  });
}

test('a file that ends before its size is refused', async () => {
  await assert.rejects(summarize(source(model(bytes(1, MATMUL)), 3e9)), Corrupt);
});
