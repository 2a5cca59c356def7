/** Commands, the tile of the launcher, and the way from a widget into a cell. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { type ICommandPalette, InputDialog, Notification } from '@jupyterlab/apputils';
import { PathExt } from '@jupyterlab/coreutils';
import type { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import type { ILauncher } from '@jupyterlab/launcher';
import { type INotebookTracker, NotebookActions, type NotebookPanel } from '@jupyterlab/notebook';
import type { Kernel } from '@jupyterlab/services';

import { asset, declarations, features } from './features';
import { findTarget } from './target';

export const COMMANDS = {
  quickstart: 'ptq-lab:quickstart',
  template: 'ptq-lab:insert-template',
  cell: 'ptq-lab:send-to-cell',
  report: 'ptq-lab:open-report',
  quantize: 'ptq-lab:quantize-in-notebook'
};
const CATEGORY = 'ptq_lab';
const COMM = 'ptq_lab.cell'; // what the widgets of the kernel open to write into a cell
const QUICKSTART = 'quickstart.ipynb';

export interface Services {
  app: JupyterFrontEnd;
  tracker: INotebookTracker | null;
  palette: ICommandPalette | null;
  launcher: ILauncher | null;
  browser: IDefaultFileBrowser | null;
}

/** Add commands, palette entries and the launcher tile. */
export function registerCommands(services: Services): void {
  const { app, palette, tracker } = services;
  const hasNotebook = (): boolean => tracker?.currentWidget != null;
  app.commands.addCommand(COMMANDS.quickstart, {
    label: args => (args['isPalette'] ? 'PTQ quickstart notebook' : 'PTQ quickstart'),
    caption: 'Quantize the model that comes with ptq_lab, step by step',
    execute: args => quickstart(services, args['cwd'] as string | undefined)
  });
  app.commands.addCommand(COMMANDS.template, {
    label: args => (args['kind'] ? `Insert %%quantize template: ${args['kind']}` : 'Insert %%quantize template...'),
    isEnabled: hasNotebook,
    execute: args => insertTemplate(services, args['kind'] as string | undefined)
  });
  app.commands.addCommand(COMMANDS.cell, {
    label: 'Send text to a %%quantize cell',
    isEnabled: hasNotebook,
    execute: args => writeCell(tracker?.currentWidget ?? null, String(args['text'] ?? ''))
  });
  app.commands.addCommand(COMMANDS.report, {
    label: 'Open quantization report...',
    execute: args => openReport(services, args['path'] as string | undefined)
  });
  app.commands.addCommand(COMMANDS.quantize, {
    label: 'Quantize in a new notebook',
    execute: args => quantizeInNotebook(app, args['path'] as string)
  });
  const shown = [COMMANDS.quickstart, COMMANDS.template, COMMANDS.report];
  for (const command of shown) palette?.addItem({ command, category: CATEGORY, args: { isPalette: true } });
  addTile(services);
  tracker?.widgetAdded.connect((_, panel) => listen(panel));
  tracker?.forEach(listen);
}

/** Show the tile as long as the setting says so. */
function addTile({ launcher }: Services): void {
  if (!launcher) return;
  let tile: { dispose(): void } | null = null;
  const follow = (): void => {
    if (features.current.launcher && !tile) {
      tile = launcher.add({ command: COMMANDS.quickstart, category: 'Notebook', rank: 90 });
    } else if (!features.current.launcher && tile) {
      tile.dispose();
      tile = null;
    }
  };
  features.changed.connect(follow);
  follow();
}

async function newNotebook(app: JupyterFrontEnd, folder: string, name: string, content: unknown): Promise<string> {
  const { contents } = app.serviceManager;
  let path = PathExt.join(folder, name);
  for (let copy = 2; await exists(app, path); copy++) {
    path = PathExt.join(folder, name.replace(/\.ipynb$/, `_${copy}.ipynb`));
  }
  await contents.save(path, { type: 'notebook', format: 'json', content });
  await app.commands.execute('docmanager:open', { path, factory: 'Notebook' });
  return path;
}

async function exists(app: JupyterFrontEnd, path: string): Promise<boolean> {
  const found = await app.serviceManager.contents.get(path, { content: false }).then(
    () => true,
    error => {
      if (error?.response?.status === 404) return false;
      throw error;
    }
  );
  return found;
}

async function quickstart({ app, browser }: Services, cwd: string | undefined): Promise<string> {
  const folder = cwd ?? browser?.model.path ?? '';
  return newNotebook(app, folder, 'ptq_quickstart.ipynb', JSON.parse(await asset(QUICKSTART)));
}

/** A notebook whose cells load ptq_lab and quantize a model. */
export function notebookFor(model: string, template: string): object {
  const cell = (source: string): object => ({
    cell_type: 'code',
    execution_count: null,
    id: source.length.toString(16).padStart(8, 'q'),
    metadata: {},
    outputs: [],
    source
  });
  const name = PathExt.basename(model);
  const output = name.replace(/\.onnx$/, '') + '_quantized.onnx';
  const quoted = (file: string): string => (/[\s{}$'"]/.test(file) ? `"${file}"` : file);
  const body = `%%quantize ${quoted(name)} -o ${quoted(output)} -r result\n${template.trimEnd()}`;
  return {
    cells: [cell('%load_ext ptq_lab'), cell(body)],
    metadata: { kernelspec: { name: 'python3', display_name: 'Python 3 (ipykernel)', language: 'python' } },
    nbformat: 4,
    nbformat_minor: 5
  };
}

async function quantizeInNotebook(app: JupyterFrontEnd, path: string): Promise<string> {
  const content = notebookFor(path, (await declarations()).templates.weight.text);
  const name = PathExt.basename(path).replace(/\.onnx$/, '') + '_quantize.ipynb';
  return newNotebook(app, PathExt.dirname(path), name, content);
}

async function insertTemplate({ tracker }: Services, kind: string | undefined): Promise<void> {
  const { templates } = await declarations();
  const chosen = kind ?? (await askKind(Object.keys(templates)));
  if (chosen === null) return;
  const template = templates[chosen];
  if (!template) throw new Error(`there is no template ${chosen}; there are ${Object.keys(templates).join(', ')}`);
  const text = `%%quantize model.onnx -o quantized.onnx -r result\n${template.text.trimEnd()}`;
  insertCell(tracker?.currentWidget ?? null, text);
}

async function askKind(kinds: string[]): Promise<string | null> {
  const asked = await InputDialog.getItem({ title: 'Which quantization?', items: kinds });
  return asked.button.accept ? asked.value : null;
}

function insertCell(panel: NotebookPanel | null, text: string): void {
  if (!panel) return;
  const active = panel.content.activeCell;
  if (active?.model.type !== 'code' || active.model.sharedModel.getSource().trim()) {
    NotebookActions.insertBelow(panel.content);
  }
  panel.content.activeCell?.model.sharedModel.setSource(text);
}

/** Put text into the active `%%quantize` cell, keeping its first line; or into a new cell. */
export function writeCell(panel: NotebookPanel | null, text: string): void {
  if (!panel) throw new Error('there is no notebook to write into');
  const model = panel.content.activeCell?.model;
  const source = model?.sharedModel.getSource() ?? '';
  const target = model?.type === 'code' ? findTarget(source.split('\n'), 'cell') : null;
  const whole = /^\s*%%/.test(text);
  if (!model || target?.kind !== 'magic') {
    insertCell(panel, whole ? text : `%%quantize model.onnx -o quantized.onnx\n${text}`);
    return;
  }
  const magic = source.split('\n').slice(0, target.before).join('\n');
  model.sharedModel.setSource(whole ? text : `${magic}\n${text}`);
}

/** Let widgets of a notebook's kernel write into its cells. */
function listen(panel: NotebookPanel): void {
  const register = (kernel: Kernel.IKernelConnection | null | undefined): void => {
    kernel?.registerCommTarget(COMM, (comm, opened) => {
      const write = (data: unknown): void => {
        const text = (data as { text?: unknown } | undefined)?.text;
        if (typeof text !== 'string' || !features.current.cells) return;
        writeCell(panel, text);
      };
      comm.onMsg = message => write(message.content.data);
      write(opened.content.data);
    });
  };
  register(panel.sessionContext.session?.kernel);
  panel.sessionContext.kernelChanged.connect((_, change) => register(change.newValue));
}

/** The report that the active cell's `debug_info_save_path` names, or empty. */
function reportOf(panel: NotebookPanel | null): string {
  const source = panel?.content.activeCell?.model.sharedModel.getSource() ?? '';
  const folder = /^\s*debug_info_save_path\s*=\s*["']?(.+?)["']?\s*$/m.exec(source)?.[1];
  return panel && folder ? PathExt.join(PathExt.dirname(panel.context.path), folder, 'report.html') : '';
}

async function openReport({ app, tracker }: Services, given: string | undefined): Promise<void> {
  let path = given ?? '';
  if (!path) {
    const text = reportOf(tracker?.currentWidget ?? null) || 'report.html';
    const asked = await InputDialog.getText({ title: 'Path of the report', text });
    path = asked.button.accept ? (asked.value ?? '').trim() : '';
  }
  if (!path) return;
  if (!(await exists(app, path))) {
    Notification.error(`ptq_lab: there is no report ${path}`, { autoClose: 8000 });
    return;
  }
  await app.commands.execute('docmanager:open', { path, factory: 'HTML Viewer' });
}
