/** A summary of an ONNX file; weights are counted, never loaded. */

import { Corrupt, type Field, Reader, type Source } from './protobuf';

export { Corrupt, type Source } from './protobuf';

export interface Port {
  name: string;
  type: string;
  shape: string[];
}

export interface Layer {
  name: string;
  bits: string;
  channels: string;
}

export interface Summary {
  opsets: [domain: string, version: number][];
  irVersion: number;
  producer: string;
  inputs: Port[];
  outputs: Port[];
  operators: [name: string, count: number][];
  parameters: number;
  quantizer: '' | 'ptq_lab' | 'another tool';
  version: string;
  layers: Layer[];
}

const TYPES =
  'undefined float uint8 int8 uint16 int16 int32 int64 string bool float16 double uint32 uint64 complex64 complex128 bfloat16 float8e4m3fn float8e4m3fnuz float8e5m2 float8e5m2fnuz uint4 int4 float4e2m1 float8e8m0 uint2 int2'.split(
    ' '
  );
const CODES: Record<string, number> = {
  uint8: 8,
  int8: 8,
  uint16: 16,
  int16: 16,
  uint4: 4,
  int4: 4,
  uint2: 2,
  int2: 2
};
const QUANTIZED = /^(?:QLinear|Quantize|Dequantize|DynamicQuantize|ConvInteger|MatMulInteger|QGemm|QAttention|MatMulNBits|GatherBlockQuantized|DynamicQuantizeMatMul|MatMulIntegerToFloat|QEmbed)/;

interface Tensor {
  name: string;
  type: string;
  dims: number[];
}

interface Node {
  op: string;
  name: string;
  inputs: string[];
  bits: number;
}

/** Read the summary of a model. Throws `Corrupt` if it is none. */
export async function summarize(source: Source): Promise<Summary> {
  if (source.size === 0) throw new Corrupt('the file is empty');
  const walk = new Walk(new Reader(source));
  await walk.model(source.size);
  return walk.summary();
}

class Walk {
  private readonly opsets: [string, number][] = [];
  private readonly metadata = new Map<string, string>();
  private readonly operators = new Map<string, number>();
  private readonly tensors = new Map<string, Tensor>();
  private readonly nodes: Node[] = [];
  private inputs: Port[] = [];
  private outputs: Port[] = [];
  private producer = '';
  private irVersion = 0;
  private parameters = 0;
  private hasGraph = false;

  constructor(private readonly reader: Reader) {}

  async model(size: number): Promise<void> {
    const producer: string[] = [];
    await this.reader.fields(0, size, async field => {
      if (field.number === 1) this.irVersion = field.value;
      else if (field.number === 2 || field.number === 3) producer.push(await this.reader.text(field));
      else if (field.number === 7) await this.graph(field, true);
      else if (field.number === 8) this.opsets.push(await this.opset(field));
      else if (field.number === 14) await this.property(field);
    });
    if (!this.hasGraph || !this.opsets.length) throw new Corrupt('the file holds no graph with an operator set');
    this.producer = producer.join(' ').trim();
  }

  summary(): Summary {
    const layers = this.ownLayers() ?? this.foreignLayers();
    const own = this.metadata.has('ptq_lab.plan');
    const others = [...this.operators.keys()].some(name => QUANTIZED.test(name.replace(/^.*::/, '')));
    return {
      opsets: this.opsets,
      irVersion: this.irVersion,
      producer: this.producer,
      inputs: this.inputs.filter(port => !this.tensors.has(port.name)),
      outputs: this.outputs,
      operators: [...this.operators].sort((left, right) => right[1] - left[1] || (left[0] < right[0] ? -1 : 1)),
      parameters: this.parameters,
      quantizer: own ? 'ptq_lab' : others ? 'another tool' : '',
      version: this.metadata.get('ptq_lab.version') ?? '',
      layers
    };
  }

  /** What ptq_lab wrote into the file: bits and channels by weight. */
  private ownLayers(): Layer[] | null {
    const plan = this.metadata.get('ptq_lab.plan');
    if (plan === undefined) return null;
    let read: unknown;
    try {
      read = JSON.parse(plan);
    } catch {
      throw new Corrupt('ptq_lab.plan in the metadata is no JSON');
    }
    return Object.entries(read as object).map(([name, value]) => {
      const [bits, channels] = Array.isArray(value) ? value : [value];
      return { name, bits: String(bits), channels: channels === undefined ? '' : String(channels) };
    });
  }

  /** Weights that operators of other tools read as codes: their width is that of the codes' type. */
  private foreignLayers(): Layer[] {
    const found = new Map<string, Layer>();
    for (const node of this.nodes.filter(each => QUANTIZED.test(each.op))) {
      for (const name of node.inputs) {
        const tensor = this.tensors.get(name);
        const bits = node.bits || (tensor && CODES[tensor.type]);
        if (!tensor || !bits || !(tensor.type in CODES) || tensor.dims.length < 2) continue; // vectors: zero points
        found.set(name, { name, bits: String(bits), channels: '' });
      }
    }
    return [...found.values()];
  }

  private async graph(at: Field, outermost: boolean): Promise<void> {
    this.hasGraph = true;
    await this.reader.fields(at.start, at.end, async field => {
      if (field.number === 1) await this.node(field);
      else if (field.number === 5) await this.tensor(field);
      else if (field.number === 11 && outermost) this.inputs.push(await this.port(field));
      else if (field.number === 12 && outermost) this.outputs.push(await this.port(field));
    });
  }

  private async node(at: Field): Promise<void> {
    const node: Node = { op: '', name: '', inputs: [], bits: 0 };
    let domain = '';
    await this.reader.fields(at.start, at.end, async field => {
      if (field.number === 1) node.inputs.push(await this.reader.text(field));
      else if (field.number === 3) node.name = await this.reader.text(field);
      else if (field.number === 4) node.op = await this.reader.text(field);
      else if (field.number === 5) await this.attribute(field, node);
      else if (field.number === 7) domain = await this.reader.text(field);
    });
    if (!node.op) throw new Corrupt(`the node at byte ${at.start} has no operator`);
    const name = domain && domain !== 'ai.onnx' ? `${domain}::${node.op}` : node.op;
    this.operators.set(name, (this.operators.get(name) ?? 0) + 1);
    this.nodes.push(node);
  }

  private async attribute(at: Field, node: Node): Promise<void> {
    let name = '';
    await this.reader.fields(at.start, at.end, async field => {
      if (field.number === 1) name = await this.reader.text(field);
      else if (field.number === 3 && name === 'bits') node.bits = field.value;
      else if (field.number === 5) await this.tensor(field);
      else if (field.number === 6) await this.graph(field, false);
    });
  }

  private async tensor(at: Field): Promise<void> {
    const tensor: Tensor = { name: '', type: '', dims: [] };
    await this.reader.fields(at.start, at.end, async field => {
      if (field.number === 1) tensor.dims.push(...(await this.reader.numbers(field)));
      else if (field.number === 2) tensor.type = TYPES[field.value] ?? `type ${field.value}`;
      else if (field.number === 8) tensor.name = await this.reader.text(field);
    });
    this.parameters += tensor.dims.reduce((all, size) => all * size, 1);
    if (tensor.name) this.tensors.set(tensor.name, tensor);
  }

  private async port(at: Field): Promise<Port> {
    const port: Port = { name: '', type: '', shape: [] };
    await this.reader.fields(at.start, at.end, async field => {
      if (field.number === 1) port.name = await this.reader.text(field);
      else if (field.number === 2) await this.type(field, port);
    });
    return port;
  }

  private async type(at: Field, port: Port): Promise<void> {
    await this.reader.fields(at.start, at.end, async field => {
      if (field.number !== 1) return;
      await this.reader.fields(field.start, field.end, async part => {
        if (part.number === 1) port.type = TYPES[part.value] ?? `type ${part.value}`;
        else if (part.number === 2) await this.shape(part, port);
      });
    });
  }

  private async shape(at: Field, port: Port): Promise<void> {
    await this.reader.fields(at.start, at.end, async field => {
      let size = '?';
      await this.reader.fields(field.start, field.end, async part => {
        size = part.wire === 0 ? String(part.value) : await this.reader.text(part);
      });
      port.shape.push(size);
    });
  }

  private async opset(at: Field): Promise<[string, number]> {
    const found: [string, number] = ['', 0];
    await this.reader.fields(at.start, at.end, async field => {
      if (field.number === 1) found[0] = await this.reader.text(field);
      else if (field.number === 2) found[1] = field.value;
    });
    return found;
  }

  private async property(at: Field): Promise<void> {
    let [key, value] = ['', ''];
    await this.reader.fields(at.start, at.end, async field => {
      if (field.number === 1) key = await this.reader.text(field);
      else if (field.number === 2 && key.startsWith('ptq_lab.')) value = await this.reader.text(field);
    });
    this.metadata.set(key, value);
  }
}
