// Bundle the compiled script into the Python package; the same sources give the same bytes.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const output = path.resolve(here, '../ptq_lab/labextension');
const declarations = path.join(output, 'declarations.json');
const modules = path.join(here, 'node_modules');

// What the built files depend on. tests/labextension reads the same list.
const SOURCES = ['package.json', 'package-lock.json', 'tsconfig.json', 'build.mjs', 'webpack.config.cjs', 'schema', 'src', 'style'];

/** The files below a path, in a stable order. */
function files(name) {
  const found = readdirSync(here, { withFileTypes: true }).find(entry => entry.name === name);
  if (!found.isDirectory()) return [name];
  return readdirSync(path.join(here, name)).sort().map(file => `${name}/${file}`);
}

/** The core packages of the oldest JupyterLab that is supported, so that it does not warn about newer ones. */
function corePackage() {
  const core = JSON.parse(readFileSync(path.join(modules, '@jupyterlab/core-meta/core.package.json'), 'utf8'));
  for (const table of [core.dependencies, core.resolutions]) {
    for (const name of Object.keys(table ?? {})) {
      const installed = path.join(modules, name, 'package.json');
      if (name.startsWith('@jupyterlab/') && existsSync(installed)) {
        table[name] = `~${JSON.parse(readFileSync(installed, 'utf8')).version}`;
      }
    }
  }
  const file = path.join(here, 'lib', 'core.package.json');
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, JSON.stringify(core, null, 2));
  return file;
}

const kept = readFileSync(declarations); // written by Python; the builder empties the folder
const builder = path.join(modules, '@jupyter/builder/lib/build-labextension.js');
try {
  execFileSync(process.execPath, [builder, '--core-package-file', corePackage(), here], { stdio: 'inherit' });
} finally {
  mkdirSync(output, { recursive: true });
  writeFileSync(declarations, kept);
}
rmSync(path.join(output, 'build_log.json'), { force: true }); // names folders of this machine
const hash = createHash('sha256');
for (const file of SOURCES.flatMap(files)) hash.update(`${file}\n`).update(readFileSync(path.join(here, file)));
writeFileSync(path.join(output, 'sources.sha256'), `${hash.digest('hex')}\n`);
