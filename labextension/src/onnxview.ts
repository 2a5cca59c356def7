/** The view of an `.onnx` file: what goes in and out, what it is made of, and whether it is quantized. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { ABCWidgetFactory, type DocumentRegistry, DocumentWidget, TextModelFactory } from '@jupyterlab/docregistry';
import { type Contents, ServerConnection } from '@jupyterlab/services';
import { Widget } from '@lumino/widgets';

import { features } from './features';
import { Corrupt, type Source, summarize, type Summary } from './onnx';

const MODEL = 'ptq-lab-onnx';
const MEGABYTE = 1_000_000;

/** The document behind the view has no content: Lab asks the server for the size of the file alone. */
class SizeOnlyModel extends TextModelFactory {
  get name(): string {
    return MODEL;
  }
  get fileFormat(): Contents.FileFormat {
    return null;
  }
}

/** A file on the server, read in pieces. */
class RemoteFile implements Source {
  constructor(
    private readonly url: string,
    readonly size: number,
    private readonly settings: ServerConnection.ISettings
  ) {}

  async read(from: number, to: number): Promise<Uint8Array> {
    const headers = { Range: `bytes=${from}-${to - 1}` };
    const response = await ServerConnection.makeRequest(this.url, { headers, cache: 'no-store' }, this.settings);
    if (response.status === 206) return new Uint8Array(await response.arrayBuffer());
    if (!response.ok) throw new Error(`the server answered ${response.status} ${response.statusText}`);
    if (this.size > features.current.onnxMegabytes * MEGABYTE) {
      await response.body?.cancel();
      throw new Error('this server gives out whole files only, and this one is too large for that');
    }
    return new Uint8Array(await response.arrayBuffer()).subarray(from, to);
  }
}

class OnnxView extends Widget {
  constructor(
    private readonly context: DocumentRegistry.IContext<DocumentRegistry.IModel>,
    private readonly contents: Contents.IManager,
    private readonly settings: ServerConnection.ISettings,
    private readonly quantize: (path: string) => void
  ) {
    super();
    this.addClass('ptq-onnx');
    this.node.tabIndex = 0;
    context.ready.then(
      () => this.summarize(false),
      () => undefined // Lab says itself that the file cannot be opened
    );
    context.fileChanged.connect(this.changed, this);
  }

  private changed(): void {
    void this.summarize(false);
  }

  /** Show the summary, or, for a large file that nobody asked to read, its size. */
  private async summarize(asked: boolean): Promise<void> {
    try {
      await this.read(asked);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      const what = error instanceof Corrupt ? 'This is not a complete ONNX model' : 'The model cannot be read';
      this.draw([element('p', `${what}: ${reason}.`, 'ptq-onnx-error')]);
    }
  }

  private async read(asked: boolean): Promise<void> {
    // Lab's own record of the file has no size.
    const { size = 0 } = await this.contents.get(this.context.path, { content: false });
    const limit = features.current.onnxMegabytes * MEGABYTE;
    if (size > limit && !asked) {
      this.draw(stub(size, () => void this.summarize(true)));
      return;
    }
    this.draw([element('p', 'Reading...')]);
    const url = await this.contents.getDownloadUrl(this.context.path);
    const summary = await summarize(new RemoteFile(url, size, this.settings));
    this.draw(describe(summary, size));
  }

  private draw(content: HTMLElement[]): void {
    if (this.isDisposed) return;
    const button = element('button', 'Quantize in a new notebook', 'jp-mod-styled ptq-onnx-quantize');
    button.addEventListener('click', () => this.quantize(this.context.path));
    this.node.replaceChildren(element('h1', this.context.path.split('/').pop() ?? ''), ...content, button);
  }
}

function element(tag: string, text: string, className = ''): HTMLElement {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

function table(caption: string, head: string[], rows: string[][]): HTMLElement {
  const made = document.createElement('table');
  made.appendChild(element('caption', caption));
  const top = made.createTHead().insertRow();
  for (const title of head) top.appendChild(element('th', title));
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const cell of row) line.appendChild(element('td', cell));
  }
  return made;
}

function megabytes(size: number): string {
  return `${(size / MEGABYTE).toLocaleString('en', { maximumSignificantDigits: 3 })} MB`;
}

function stub(size: number, read: () => void): HTMLElement[] {
  const button = element('button', 'Read the summary', 'jp-mod-styled');
  button.addEventListener('click', read);
  const text = `This file has ${megabytes(size)}, so it was not opened. Its weights are stepped over when you read it.`;
  return [element('p', text, 'ptq-onnx-stub'), button];
}

function describe(summary: Summary, size: number): HTMLElement[] {
  const ports = [
    ...summary.inputs.map(port => ['input', port.name, port.type, port.shape.join(' × ')]),
    ...summary.outputs.map(port => ['output', port.name, port.type, port.shape.join(' × ')])
  ];
  const opset = summary.opsets.map(([domain, version]) => (domain ? `${domain} ${version}` : String(version)));
  const facts = [
    ['Size', megabytes(size)],
    ['Parameters', summary.parameters.toLocaleString('en')],
    ['Opset', opset.join(', ')],
    ['IR version', String(summary.irVersion)],
    ['Written by', summary.producer || 'unknown'],
    ['Quantized', quantized(summary)]
  ];
  const found = [
    table('Model', ['', ''], facts),
    table('Inputs and outputs', ['', 'name', 'type', 'shape'], ports),
    table('Operators', ['operator', 'nodes'], summary.operators.map(([name, count]) => [name, String(count)]))
  ];
  if (!summary.layers.length) return found;
  const layers = summary.layers.map(layer => [layer.name, layer.bits, layer.channels]);
  return [...found, table('Quantized weights', ['weight', 'bits', 'channels'], layers)];
}

function quantized(summary: Summary): string {
  if (summary.quantizer === '') return 'no';
  if (summary.quantizer === 'ptq_lab') return `by ptq_lab ${summary.version}`.trim();
  return 'by another tool';
}

class OnnxFactory extends ABCWidgetFactory<DocumentWidget<OnnxView>> {
  constructor(
    private readonly app: JupyterFrontEnd,
    private readonly quantize: (path: string) => void
  ) {
    const fileTypes = ['onnx'];
    super({ name: 'ONNX summary', modelName: MODEL, fileTypes, defaultFor: fileTypes, readOnly: true });
  }

  protected createNewWidget(context: DocumentRegistry.Context): DocumentWidget<OnnxView> {
    const { contents, serverSettings } = this.app.serviceManager;
    const content = new OnnxView(context, contents, serverSettings, this.quantize);
    return new DocumentWidget({ content, context });
  }
}

/** Open `.onnx` files in the view. */
export function registerOnnx(app: JupyterFrontEnd, quantize: (path: string) => void): void {
  const registry = app.docRegistry;
  registry.addModelFactory(new SizeOnlyModel());
  if (!registry.getFileType('onnx')) {
    registry.addFileType({
      name: 'onnx',
      displayName: 'ONNX model',
      extensions: ['.onnx'],
      mimeTypes: ['application/octet-stream'],
      contentType: 'file',
      fileFormat: 'base64'
    });
  }
  registry.addWidgetFactory(new OnnxFactory(app, quantize));
}
