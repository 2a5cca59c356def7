/** Highlighting, comment signs and folding of a configuration. */

import { foldService, LanguageSupport, type StreamParser, StreamLanguage } from '@codemirror/language';
import type { EditorState, Extension } from '@codemirror/state';
import type { IEditorLanguageRegistry } from '@jupyterlab/codemirror';

import { commentStart } from './ini';
import { MIME, type Target } from './target';

const NAME = 'PTQ config'; // the status bar shows the name, menus the other one

interface State {
  before: number;
  part: 'key' | 'value';
}

const NUMBER = /^[+-]?(?:0[xX][0-9a-fA-F]+|[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+)(?=[\s,\]]|$)/;
const WORD = /^(?:true|false|[A-Z][A-Z0-9_]{2,})(?=[\s,]|$)/i;

function parser(before: number): StreamParser<State> {
  return {
    name: 'ptq-ini',
    languageData: { commentTokens: { line: '#' } },
    startState: () => ({ before, part: 'key' }),
    copyState: state => ({ ...state }),
    blankLine: state => {
      if (state.before > 0) state.before--;
    },
    token(stream, state) {
      if (stream.sol()) state.part = 'key';
      if (state.before > 0) {
        state.before--;
        stream.skipToEnd();
        return 'meta';
      }
      if (stream.eatSpace()) return null;
      const first = stream.string.slice(0, stream.pos).trim() === '';
      if (stream.peek() === '#' && (first || /\s/.test(stream.string[stream.pos - 1]))) {
        stream.skipToEnd();
        return 'comment';
      }
      return state.part === 'key' ? key(stream, state, first) : value(stream);
    }
  };
}

type Stream = Parameters<StreamParser<State>['token']>[0];

function key(stream: Stream, state: State, first: boolean): string | null {
  if (first && /^"?\[/.test(stream.string.slice(stream.pos))) {
    stream.pos = Math.max(commentStart(stream.string, stream.pos), stream.pos + 1);
    return 'keyword';
  }
  if (stream.eat('=')) {
    state.part = 'value';
    return 'operator';
  }
  if (stream.match(/^"[^"]*"/) || stream.match(/^[^=\s"]+/) || stream.next()) return 'propertyName';
  return null;
}

function value(stream: Stream): string | null {
  if (stream.match(/^"[^"]*"?/)) return 'string';
  if (stream.match(NUMBER)) return 'number';
  if (stream.match(WORD)) return 'atom';
  if (stream.match(/^[,\[\]，、]/)) return null;
  if (stream.match(/^[^\s,\[\]]+/) || stream.next()) return 'string';
  return null;
}

/** Fold a section: from the end of its header to its last line that is not empty. */
function foldSection(state: EditorState, start: number, end: number): { from: number; to: number } | null {
  if (!/^\s*"?\[/.test(state.sliceDoc(start, end))) return null;
  let last = end;
  const first = state.doc.lineAt(start).number;
  for (let number = first + 1; number <= state.doc.lines; number++) {
    const line = state.doc.line(number);
    if (/^\s*"?\[/.test(line.text)) break;
    if (line.text.trim()) last = line.to;
  }
  return last > end ? { from: end, to: last } : null;
}

/** Tell Lab the name of the language, for its status bar and its menus. */
export function registerLanguage(languages: IEditorLanguageRegistry): void {
  const support = new LanguageSupport(StreamLanguage.define(parser(0)));
  languages.addLanguage({ name: NAME, displayName: NAME, mime: MIME, support });
}

/** The language of a document whose first lines are a magic, and what comes with it. */
export function language(target: Target): Extension {
  return [StreamLanguage.define(parser(target.before)), foldService.of(foldSection)];
}
