/** ptq_lab in JupyterLab and Jupyter Notebook: configurations that feel like a language. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { IEditorExtensionRegistry, IEditorLanguageRegistry } from '@jupyterlab/codemirror';
import { ICompletionProviderManager } from '@jupyterlab/completer';
import { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';

import { COMMANDS, registerCommands } from './commands';
import { ConfigCompletions } from './complete';
import { registerEditor } from './editor';
import { features } from './features';
import { registerLanguage } from './language';
import { registerOnnx } from './onnxview';

const settings: JupyterFrontEndPlugin<void> = {
  id: 'ptq-lab:plugin',
  description: 'Editor services for quantization configurations.',
  autoStart: true,
  requires: [IEditorExtensionRegistry, IEditorLanguageRegistry],
  optional: [ICompletionProviderManager, ISettingRegistry],
  activate: (
    _: JupyterFrontEnd,
    editors: IEditorExtensionRegistry,
    languages: IEditorLanguageRegistry,
    completions: ICompletionProviderManager | null,
    registry: ISettingRegistry | null
  ) => {
    registerEditor(editors);
    registerLanguage(languages);
    completions?.registerProvider(new ConfigCompletions());
    registry?.load('ptq-lab:plugin').then(
      chosen => features.follow(chosen),
      error => console.error('ptq-lab: the settings cannot be read', error)
    );
  }
};

const commands: JupyterFrontEndPlugin<void> = {
  id: 'ptq-lab:commands',
  description: 'Commands, the tile of the launcher, and the way from a widget into a cell.',
  autoStart: true,
  optional: [INotebookTracker, ICommandPalette, ILauncher, IDefaultFileBrowser],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker | null,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    browser: IDefaultFileBrowser | null
  ) => registerCommands({ app, tracker, palette, launcher, browser })
};

const onnx: JupyterFrontEndPlugin<void> = {
  id: 'ptq-lab:onnx',
  description: 'A summary of .onnx files.',
  autoStart: true,
  optional: [ISettingRegistry],
  activate: async (app: JupyterFrontEnd, registry: ISettingRegistry | null) => {
    // File types are fixed once a file is open, so the setting is read before, and counts after a reload.
    const chosen = await registry?.get('ptq-lab:plugin', 'onnx');
    if (chosen?.composite === false) return;
    registerOnnx(app, path => void app.commands.execute(COMMANDS.quantize, { path }));
  }
};

export default [settings, commands, onnx];
