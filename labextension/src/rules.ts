/** What is wrong, odd or worth knowing about options taken together: `ptq_lab.config.rules`, rows and functions. */

import { inputShapes, mismatch } from './ascend';
import type { Config } from './check';
import { address, Address, Condition, Level, Needs, Option, Problem, Rule } from './declarations';
import { Value, writeValue } from './kinds';
import { general, repr, shortest } from './text';

const COMMON = 'common_quant_param';
const MIXED = 'mixed_bit_weight_quant_param';
const BUDGET = 'ptq_lab.mixed_bit';
const ASCEND = 'ascend_context';
const SAMPLES = 'data_preprocess_param';
const GOALS = ['target_size_mb', 'average_bits', 'compression_ratio', 'min_cosine', 'max_metric_drop'];
const RAW_WIDTHS: unknown[] = [8, 16]; // what can be stored without packing
const IMAGE_KEYS = [
  'image_to_format',
  'normalize_mean',
  'normalize_std',
  'resize_width',
  'resize_height',
  'resize_method',
  'center_crop_width',
  'center_crop_height'
];

type Finding = Pick<Problem, 'level' | 'section' | 'message'> & Partial<Problem>;
type Check = (config: Config) => Finding[];
type Row = Exclude<Rule, { name: string }>;

/** What the rules say about a configuration; those about values that could not be read are left out. */
export function findings(config: Config): Problem[] {
  const rules = config.declared.rules.filter(
    rule => !reads(rule).some(([section, key]) => config.broken.has(address(section, key)))
  );
  return rules
    .flatMap(rule => ('name' in rule ? FUNCTIONS[rule.name](config) : row(config, rule)))
    .map(found => config.located(found));
}

/** The options a rule looks at. */
function reads(rule: Rule): Address[] {
  if ('name' in rule) return rule.reads;
  const own = rule.when.flatMap(([operation, section, key, ...values]): Address[] =>
    operation === 'above' ? [[section, key], values as Address] : [[section, key]]
  );
  return rule.level === 'samples' ? [[COMMON, 'quant_type'], ...own] : own;
}

const isSet = (value: unknown): boolean => value !== null && !(Array.isArray(value) && value.length === 0);
const type = (config: Config): unknown => config.value(COMMON, 'quant_type');

const OPERATIONS: Record<string, (config: Config, option: Address, values: unknown[]) => boolean> = {
  is: (config, option, values) => values.includes(config.value(...option)),
  'is not': (config, option, values) => !values.includes(config.value(...option)),
  set: (config, option) => isSet(config.value(...option)),
  unset: (config, option) => !isSet(config.value(...option)),
  given: (config, option) => config.given(...option),
  'not given': (config, option) => !config.given(...option),
  above: (config, option, values) => {
    const limit = config.value(...(values as Address));
    return limit !== null && (config.value(...option) as number) > (limit as number);
  },
  'not between': (config, option, values) => {
    const value = config.value(...option) as number;
    return !((values[0] as number) < value && value < (values[1] as number));
  },
  holds: (config, option, values) => (config.value(...option) as unknown[]).includes(values[0])
};

/** The operations of rows that are known here; a test compares them with the declarations. */
export const KNOWN_OPERATIONS = Object.keys(OPERATIONS);

function samplesLevel(config: Config): Level {
  return type(config) === 'FULL_QUANT' ? 'error' : 'warning';
}

function row(config: Config, rule: Row): Finding[] {
  const holds = ([operation, section, key, ...values]: Condition): boolean =>
    OPERATIONS[operation](config, [section, key], values);
  if (!rule.when.every(holds)) return [];
  const level = rule.level === 'samples' ? samplesLevel(config) : rule.level;
  const values = new Map(reads(rule).map(([section, key]) => [key, config.value(section, key)]));
  const message = rule.message.replace(/\{(\w+)(!r|:g)?\}/g, (_, key: string, how?: string) => {
    const value = values.get(key);
    if (how === '!r') return repr(String(value));
    if (how === ':g') return general(value as number);
    return typeof value === 'number' ? shortest(value) : String(value);
  });
  return [{ level, section: rule.section, key: rule.key ?? '', message, hint: rule.hint ?? '' }];
}

function unmet(config: Config, needs: Needs): string {
  for (const [key, values] of Object.entries(needs)) {
    const value = config.value(COMMON, key);
    if (!values.includes(value)) return `not used, because ${key} is ${value}`;
  }
  return '';
}

/** Look at the widths of single layers: whether they count, and whether they can be stored. */
function pins(config: Config): Finding[] {
  const { section, usedWith } = config.declared.pins;
  if (!config.pins.length || type(config) === null) return [];
  const reason = unmet(config, usedWith);
  if (reason) return [{ level: 'note', section, message: reason }];
  if (config.value(COMMON, 'enable_encode')) return [];
  return config.pins
    .filter(([, bits]) => !RAW_WIDTHS.includes(bits))
    .map(([key, bits]) => ({
      level: 'error',
      section,
      key,
      message: `enable_encode=false needs 8 or 16 bits, not ${bits}`,
      hint: 'write enable_encode=true, or choose another width'
    }));
}

/** Every option that is given, with its declaration. */
function givenOptions(config: Config, section: string): [string, Option][] {
  return Object.entries(config.declared.sections[section].options).filter(([key]) => config.given(section, key));
}

/** Name sections, and single options, that the chosen quantization does not look at. */
function notUsed(config: Config): Finding[] {
  if (type(config) === null) return [];
  return Object.entries(config.declared.sections).flatMap(([section, group]): Finding[] => {
    const reason = config.given(section, '') && unmet(config, group.usedWith);
    if (reason) return [{ level: 'note', section, message: reason }];
    return givenOptions(config, section)
      .map(([key, option]) => ({ key, message: unmet(config, option.usedWith) }))
      .filter(found => found.message)
      .map(found => ({ level: 'note', section, ...found }));
  });
}

function noEffect(config: Config): Finding[] {
  return Object.keys(config.declared.sections).flatMap(section =>
    givenOptions(config, section)
      .filter(([, option]) => option.noEffect)
      .map(([key, option]): Finding => {
        return { level: 'note', section, key, message: `accepted without effect: ${option.noEffect}` };
      })
  );
}

function averageBits(config: Config): Finding[] {
  const wanted = config.value(BUDGET, 'average_bits') as number | null;
  const widths = [...(config.value(BUDGET, 'bits') as number[]), ...config.pins.map(([, bits]) => bits)];
  const lowest = Math.min(...widths);
  if (wanted === null || wanted >= lowest) return [];
  const message = `${general(wanted)} cannot be reached with ${lowest} bits or more`;
  return [{ level: 'error', section: BUDGET, key: 'average_bits', message, hint: 'add a smaller number to bits' }];
}

/** Name what does not count, because something else decides how the widths are chosen. */
function tuning(config: Config): Finding[] {
  const mixed = !unmet(config, config.declared.sections[MIXED].usedWith);
  const budget = mixed ? GOALS.find(key => config.value(BUDGET, key) !== null) : undefined;
  const byBudget = budget ? `not used, because [${BUDGET}] ${budget} decides` : '';
  const tuned = config.value(MIXED, 'auto_tune') as boolean;
  const reasons: [string, string][] = [
    ['auto_tune', tuned ? byBudget : ''],
    ['init_scale', byBudget || (tuned ? 'not used, because auto_tune searches for it' : '')],
    ['max_iterations', byBudget || (tuned ? '' : 'not used, because auto_tune is false')]
  ];
  return reasons
    .filter(([key, message]) => message && config.given(MIXED, key))
    .map(([key, message]) => ({ level: key === 'auto_tune' ? 'warning' : 'note', section: MIXED, key, message }));
}

function ascend(config: Config): Finding[] {
  const shapes = config.value(ASCEND, 'input_shape') as string | null;
  const dims = (config.value(ASCEND, 'dynamic_dims') as string | null) ?? '';
  const message = shapes === null ? '' : mismatch(inputShapes(shapes), dims);
  return message ? [{ level: 'error', section: ASCEND, key: dims ? 'dynamic_dims' : 'input_shape', message }] : [];
}

function twice(config: Config): Finding[] {
  const names = (config.value(SAMPLES, 'calibrate_path') as [string, string][]).map(([name]) => name);
  const repeated = new Set(names.filter((name, at) => names.indexOf(name) !== at));
  return [...repeated].sort().map(name => ({
    level: samplesLevel(config),
    section: SAMPLES,
    key: 'calibrate_path',
    message: `input ${name} is named twice`
  }));
}

function channels(config: Config): Finding[] {
  if (config.value(SAMPLES, 'input_type') === 'BIN') return [];
  const format = config.value(SAMPLES, 'image_to_format') as string | null;
  const count = format === 'GRAY' ? 1 : 3;
  const form = `${format ?? 'BGR (image_to_format is unset)'} has ${count} channel${count > 1 ? 's' : ''}`;
  return ['normalize_mean', 'normalize_std'].flatMap((key): Finding[] => {
    const length = (config.value(SAMPLES, key) as number[]).length;
    if (!length || length === count) return [];
    return [{ level: samplesLevel(config), section: SAMPLES, key, message: `${length} values, but ${form}` }];
  });
}

function rawBytes(config: Config): Finding[] {
  if (config.value(SAMPLES, 'input_type') !== 'BIN') return [];
  const given = IMAGE_KEYS.filter(key => config.given(SAMPLES, key));
  if (!given.length) return [];
  const message = `input_type is BIN, so these are not used: ${given.join(', ')}`;
  return [{ level: 'note', section: SAMPLES, key: given[0], message }];
}

function otherTools(config: Config): Finding[] {
  if (type(config) === null) return [];
  const found: Finding[] = [];
  if (config.foreign.some(each => each.name === 'model_param')) {
    const message = 'the original ignores every quantization section when this one is present';
    found.push({ level: 'note', section: 'model_param', message });
  }
  if (config.foreign.some(each => each.name === 'registry' && each.keys.includes('plugin_path'))) {
    const message = 'the original refuses plug-ins together with quantization; here they are not loaded';
    found.push({ level: 'warning', section: 'registry', message });
  }
  return found;
}

/** The rules that are functions, by the names they have in Python. */
export const FUNCTIONS: Record<string, Check> = {
  pins,
  not_used: notUsed,
  no_effect: noEffect,
  average_bits: averageBits,
  tuning,
  ascend,
  twice,
  channels,
  raw_bytes: rawBytes,
  other_tools: otherTools
};

/** What a configuration asks for that is declared but does not work so far. */
export function unsupported(config: Config): Problem[] {
  const chosen = type(config);
  if (chosen === null) return [];
  return Object.entries(config.declared.sections).flatMap(([section, group]) => {
    if (unmet(config, group.usedWith)) return [];
    return Object.entries(group.options)
      .filter(([key, option]) => !works(option, config.value(section, key), chosen as string))
      .map(([key, option]) => {
        const message = `${writeValue(config.value(section, key) as Value, option.kind)} is not implemented yet`;
        return config.located({ level: 'error', section, key, message, hint: available(option) });
      });
  });
}

function works(option: Option, value: unknown, chosen: string): boolean {
  if (option.implemented === true || option.implementedFor.includes(chosen)) return true;
  if (JSON.stringify(value) === JSON.stringify(option.default)) return true;
  return Array.isArray(option.implemented) && option.implemented.includes(value);
}

function available(option: Option): string {
  if (option.soFar) return option.soFar;
  const words = Array.isArray(option.implemented) ? option.implemented.map(String) : [];
  const value = option.default as Value | null;
  if (value !== null && !words.includes(String(value))) words.push(writeValue(value, option.kind));
  return words.length ? `so far: ${words.join(', ')}` : 'leave it out';
}
