/** One extension per editor that turns itself on where a configuration starts, and off again. */

import { Compartment, EditorState, type Extension, Prec } from '@codemirror/state';
import { type EditorView, ViewPlugin } from '@codemirror/view';
import type { CodeEditor } from '@jupyterlab/codeeditor';
import { EditorExtensionRegistry, type IEditorExtensionRegistry } from '@jupyterlab/codemirror';

import { declarations, features } from './features';
import { hover } from './hover';
import { language } from './language';
import { lint } from './lint';
import { MIME, type Place, placeOf, type Target, targetOf } from './target';

const OFF: Extension = [];

function extensions(target: Target | null): Extension {
  const { language: enabled, hover: hovers, lint: lints } = features.current;
  if (!target) return OFF;
  return [
    enabled ? language(target) : [],
    hovers ? hover(declarations(), target) : [],
    lints ? lint(declarations(), target) : []
  ];
}

/** The parts that depend on the text, in a compartment that follows it. */
class Follower {
  private readonly compartment = new Compartment();
  private target: Target | null = null;

  constructor(private readonly model: CodeEditor.IModel) {}

  extension(): Extension {
    const { compartment } = this;
    const update = (): void => this.refresh();
    const subscribed = ViewPlugin.define(view => {
      this.view = view;
      features.changed.connect(update);
      this.model.mimeTypeChanged.connect(update);
      return {
        destroy: () => {
          features.changed.disconnect(update);
          this.model.mimeTypeChanged.disconnect(update);
        }
      };
    });
    const follow = EditorState.transactionExtender.of(transaction => {
      if (!transaction.docChanged) return null;
      const target = targetOf(transaction.newDoc, this.place);
      if (same(target, this.target)) return null;
      this.target = target;
      this.nameType();
      return { effects: compartment.reconfigure(extensions(target)) };
    });
    this.target = findFirst(this.model, this.place);
    this.nameType();
    // A language that Lab loads late would win over ours without the highest precedence.
    return [Prec.highest(compartment.of(extensions(this.target))), follow, subscribed];
  }

  private view: EditorView | null = null;
  private typeBefore = '';

  /** Give a file that is a configuration our type, and back its own when it is none any more; not while it changes. */
  private nameType(): void {
    void Promise.resolve().then(() => {
      const { model } = this;
      const isOurs = this.target?.kind === 'file' && features.current.language;
      if (isOurs === (model.mimeType === MIME)) return;
      if (isOurs) this.typeBefore = model.mimeType;
      model.mimeType = isOurs ? MIME : this.typeBefore;
    });
  }

  private get place(): Place {
    return placeOf(this.model);
  }

  /** Start again after a setting or the type of the file has changed. */
  private refresh(): void {
    const { view } = this;
    if (!view) return;
    this.target = targetOf(view.state.doc, this.place);
    this.nameType();
    const effects = this.compartment.reconfigure(extensions(this.target));
    if (this.target || this.compartment.get(view.state) !== OFF) view.dispatch({ effects });
  }
}

function findFirst(model: CodeEditor.IModel, place: Place): Target | null {
  const source = model.sharedModel.getSource();
  return targetOf(EditorState.create({ doc: source }).doc, place);
}

function same(left: Target | null, right: Target | null): boolean {
  return left?.kind === right?.kind && left?.before === right?.before;
}

/** Add the extension to every editor that is made from now on. */
export function registerEditor(registry: IEditorExtensionRegistry): void {
  registry.addExtension({
    name: 'ptq-lab',
    factory: ({ model }) => EditorExtensionRegistry.createImmutableExtension(new Follower(model).extension())
  });
}
