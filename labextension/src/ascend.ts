/** The grammar of `[ascend_context]` shapes, as in `ptq_lab.config.ascend`. */

import { Rejected } from './rejected';
import { show, strip, stripEnd } from './text';

export type Shapes = [name: string, axes: number[]][];

const PROFILES = /\[([^[\]]*)\]/g;
const RANK = 4;

/** Input names and shapes; -1 marks a dynamic axis. */
export function inputShapes(text: string): Shapes {
  return stripEnd(text, ';').split(';').map(shape);
}

function shape(item: string): [string, number[]] {
  const colon = item.lastIndexOf(':');
  const name = strip(item.slice(0, Math.max(colon, 0)));
  const brackets = strip(item.slice(colon + 1));
  if (colon < 0 || !name) throw new Rejected(`${show(item)} names no input`, 'write name:[1,3,224,224]');
  const inside = /^\[([^[\]]*)\]$/.exec(brackets);
  const axes = inside ? inside[1].split(',').map(strip) : [];
  if (!inside || axes.some(axis => !/^(-1|[0-9]+)$/.test(axis) || Number(axis) === 0)) {
    throw new Rejected(`${show(brackets)} is not a shape`, 'write axes from 1 up, or -1, in brackets');
  }
  const sizes = axes.map(Number);
  if (sizes.includes(-1) && !isDynamicImage(sizes)) {
    const hint = 'allowed: -1 for the batch alone, or for two of the other axes';
    throw new Rejected(`${show(brackets)}: of four axes, either the first or two others may be -1`, hint);
  }
  return [name, sizes];
}

function isDynamicImage(sizes: number[]): boolean {
  const free = sizes.flatMap((size, axis) => (size === -1 ? [axis] : []));
  return sizes.length === RANK && ((free.length === 1 && free[0] === 0) || (free.length === 2 && !free.includes(0)));
}

/** The profiles of each input; a profile holds a number or a range per dynamic axis. */
export function profileGroups(text: string): string[][][] {
  return stripEnd(text, ';').split(';').map(part => group(strip(part)));
}

function group(text: string): string[][] {
  if (!/^\[[^[\]]*\](\s*,\s*\[[^[\]]*\])*$/.test(text)) {
    throw new Rejected(`${show(text)} is not a list of profiles`, 'write e.g. [1~4],[8],[16]');
  }
  return [...text.matchAll(PROFILES)].map(found => profile(found[1]));
}

function profile(inside: string): string[] {
  const entries = inside.split(',').map(strip);
  for (const entry of entries) {
    const range = /^([0-9]+)(?:~([0-9]+))?$/.exec(entry);
    if (!range || Number(range[1]) < 1 || (range[2] && Number(range[2]) < Number(range[1]))) {
      throw new Rejected(`${show(entry)} is not a size`, 'write a number from 1 up, or e.g. 1~4');
    }
  }
  return entries;
}

/** Why profiles do not fit the shapes, or empty when they do. */
export function mismatch(shapes: Shapes, dims: string): string {
  const free = new Map<string, number>();
  for (const [name, axes] of shapes) {
    if (axes.includes(-1)) free.set(name, axes.filter(axis => axis === -1).length);
  }
  if (!free.size) return '';
  if (!dims) return `input ${[...free.keys()][0]} has a dynamic axis, but there is no dynamic_dims`;
  const texts = stripEnd(dims, ';').split(';').map(strip);
  const groups = profileGroups(dims);
  if (groups.length !== shapes.length) {
    return `there are ${shapes.length} inputs, but dynamic_dims has ${groups.length} groups`;
  }
  if (new Set(groups.map(each => each.length)).size > 1) return 'every input needs the same number of profiles';
  for (const [index, [name]] of shapes.entries()) {
    const count = free.get(name);
    const wrong = count === undefined ? undefined : groups[index].find(each => each.length !== count);
    if (wrong) {
      const axes = count === 1 ? 'axis' : 'axes';
      return `input ${name} has ${count} dynamic ${axes}, but a profile has ${wrong.length} entries`;
    }
  }
  const same = new Set(texts.filter((_, index) => free.has(shapes[index][0])));
  return same.size > 1 ? 'all dynamic inputs need the same profiles' : '';
}
