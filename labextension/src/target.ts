/** Which documents are configurations, and where the configuration starts in them. */

import type { Text } from '@codemirror/state';

const HEAD = 200; // lines of a file in which a section of ours must show up
const LEADING = 20; // empty lines before a magic
const MAGIC = /^%%quantize(?:\s|$)/;
const WRITEFILE = /^%%(?:writefile|file)\s(?:.*\s)?["']?[^\s"']+\.cfg["']?\s*$/;
/** The type of a file that holds a configuration; Lab itself takes `.cfg` for the language TTCN_CFG. */
export const MIME = 'text/x-ptq-config';
const FILE_TYPES = [MIME, 'text/x-ttcn-cfg', 'text/x-ini', 'text/x-properties', 'text/plain', 'text/x-toml', ''];
const HEADER =
  /^\s*\[(?:ptq_lab(?:\.[\w.]+)?|(?:common|weight|mixed_bit_weight|full|dynamic|transform)_quant_param|data_preprocess_param)\]/;

/** What an editor shows: a code cell, a file that may be a configuration, or neither. */
export type Place = 'cell' | 'file' | 'other';

export interface Target {
  kind: 'magic' | 'writefile' | 'file';
  /** The number of lines before the configuration. */
  before: number;
}

interface Model {
  mimeType: string;
  type?: string;
}

/** What a model of an editor belongs to; markdown and raw cells are neither. */
export function placeOf(model: Model): Place {
  if ('type' in model && typeof model.type === 'string') return model.type === 'code' ? 'cell' : 'other';
  return FILE_TYPES.includes(model.mimeType) ? 'file' : 'other';
}

/** The configuration in a document, or null; looks at its head alone, so it costs nothing while typing. */
export function findTarget(lines: Iterable<string>, place: Place): Target | null {
  if (place === 'other') return null;
  let number = 0;
  for (const line of lines) {
    number++;
    if (place === 'file' && HEADER.test(line)) return { kind: 'file', before: 0 };
    if (place === 'cell' && line.trim()) {
      if (MAGIC.test(line)) return { kind: 'magic', before: number };
      return WRITEFILE.test(line) ? { kind: 'writefile', before: number } : null;
    }
    if (number >= (place === 'file' ? HEAD : LEADING)) return null;
  }
  return null;
}

/** The configuration in a document of an editor. */
export function targetOf(doc: Text, place: Place): Target | null {
  return place === 'other' ? null : findTarget(doc.iterLines(), place);
}

/** Whether a text holds one of our sections at all. */
export function hasSection(text: string): boolean {
  return text.split('\n').some(line => HEADER.test(line));
}
