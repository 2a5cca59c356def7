/** Did you mean: the one candidate a mistyped word most likely stands for, found as Python's difflib finds it. */

const CUTOFF = 0.6; // lets one letter in three be wrong
const PART = 4; // shorter parts of a word say nothing
const POPULAR = 200; // from this length on, difflib leaves out characters that are everywhere

type Positions = Map<string, number[]>;

/** The candidate that is meant, or empty when none is near enough. */
export function closest(word: string, candidates: Iterable<string>): string {
  const folded = new Map<string, string>();
  for (const candidate of candidates) {
    if (!folded.has(fold(candidate))) folded.set(fold(candidate), candidate);
  }
  const target = fold(word);
  const same = folded.get(target);
  if (same !== undefined) return same;
  const letters = Array.from(target);
  const positions = index(letters);
  let [best, score] = ['', 0];
  for (const name of folded.keys()) {
    const value = ratio(Array.from(name), letters, positions);
    if (value >= CUTOFF && (value > score || (value === score && name > best))) [best, score] = [name, value];
  }
  if (score > 0) return folded.get(best) as string;
  const containing = letters.length >= PART ? [...folded.keys()].filter(name => name.includes(target)) : [];
  return containing.length === 1 ? (folded.get(containing[0]) as string) : '';
}

function fold(word: string): string {
  return word.trim().toLowerCase().replace(/ß/g, 'ss').replace(/-/g, '_').replace(/ /g, '_');
}

function index(letters: string[]): Positions {
  const positions: Positions = new Map();
  letters.forEach((letter, at) => positions.set(letter, [...(positions.get(letter) ?? []), at]));
  if (letters.length >= POPULAR) {
    const limit = Math.floor(letters.length / 100) + 1;
    for (const [letter, found] of [...positions]) if (found.length > limit) positions.delete(letter);
  }
  return positions;
}

/** Twice the matching characters over all characters: 1 for equal words. */
function ratio(left: string[], right: string[], positions: Positions): number {
  const total = left.length + right.length;
  if (total === 0) return 1;
  let matching = 0;
  const queue: number[][] = [[0, left.length, 0, right.length]];
  while (queue.length) {
    const [leftLow, leftHigh, rightLow, rightHigh] = queue.pop() as number[];
    const [i, j, size] = longest(left, right, positions, [leftLow, leftHigh, rightLow, rightHigh]);
    if (size === 0) continue;
    matching += size;
    queue.push([leftLow, i, rightLow, j], [i + size, leftHigh, j + size, rightHigh]);
  }
  return (2 * matching) / total;
}

function longest(left: string[], right: string[], positions: Positions, range: number[]): number[] {
  const [leftLow, leftHigh, rightLow, rightHigh] = range;
  let [bestLeft, bestRight, size] = [leftLow, rightLow, 0];
  let before = new Map<number, number>();
  for (let i = leftLow; i < leftHigh; i++) {
    const now = new Map<number, number>();
    for (const j of positions.get(left[i]) ?? []) {
      if (j < rightLow) continue;
      if (j >= rightHigh) break;
      const length = (before.get(j - 1) ?? 0) + 1;
      now.set(j, length);
      if (length > size) [bestLeft, bestRight, size] = [i - length + 1, j - length + 1, length];
    }
    before = now;
  }
  while (bestLeft > leftLow && bestRight > rightLow && left[bestLeft - 1] === right[bestRight - 1]) {
    [bestLeft, bestRight, size] = [bestLeft - 1, bestRight - 1, size + 1];
  }
  while (
    bestLeft + size < leftHigh &&
    bestRight + size < rightHigh &&
    left[bestLeft + size] === right[bestRight + size]
  ) {
    size++;
  }
  return [bestLeft, bestRight, size];
}
