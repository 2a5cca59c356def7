/** What the user has switched off, and the declarations, once each. */

import { PageConfig, URLExt } from '@jupyterlab/coreutils';
import type { ISettingRegistry } from '@jupyterlab/settingregistry';
import { Signal } from '@lumino/signaling';

import { Declarations, readDeclarations } from './declarations';

export const NAME = 'ptq-lab';

export interface Settings {
  language: boolean;
  completion: boolean;
  hover: boolean;
  lint: boolean;
  onnx: boolean;
  onnxMegabytes: number;
  launcher: boolean;
  cells: boolean;
}

/** The user's choices; all features are on until the settings say otherwise. */
export class Features {
  current: Settings = {
    language: true,
    completion: true,
    hover: true,
    lint: true,
    onnx: true,
    onnxMegabytes: 64,
    launcher: true,
    cells: true
  };
  readonly changed = new Signal<this, Settings>(this);

  follow(settings: ISettingRegistry.ISettings): void {
    const read = (): void => {
      this.current = { ...this.current, ...(settings.composite as Partial<Settings>) };
      this.changed.emit(this.current);
    };
    settings.changed.connect(read);
    read();
  }
}

export const features = new Features();

/** The address of a file that comes with the extension. */
export function assetUrl(file: string): string {
  const base = PageConfig.getOption('fullLabextensionsUrl') || URLExt.join(PageConfig.getBaseUrl(), 'lab/extensions');
  return URLExt.join(base, NAME, file);
}

/** Read a file that comes with the extension; the address is the server's own. */
export async function asset(file: string): Promise<string> {
  const response = await fetch(assetUrl(file), { cache: 'no-cache' });
  if (!response.ok) throw new Error(`${assetUrl(file)}: ${response.status} ${response.statusText}`);
  return response.text();
}

let loading: Promise<Declarations> | null = null;

/** The declarations of all options; they are read when the first editor needs them. */
export function declarations(): Promise<Declarations> {
  loading ??= asset('declarations.json').then(readDeclarations);
  loading.catch(error => {
    loading = null; // try again with the next editor
    console.error('ptq-lab: the declarations of the options cannot be read', error);
  });
  return loading;
}
