/** Just enough of the protocol buffer wire format to walk a file that is read in pieces. */

/** Bytes that can be read in pieces, so that weights are stepped over instead of loaded. */
export interface Source {
  readonly size: number;
  read(from: number, to: number): Promise<Uint8Array>;
}

export class Corrupt extends Error {}

const PIECE = 1 << 18;
const LARGEST_TEXT = 1 << 22;

/** One field: its number, and either its value or where its bytes stand. */
export interface Field {
  number: number;
  wire: number;
  value: number;
  start: number;
  end: number;
}

/** Reads a source forwards through a window of bytes. */
export class Reader {
  private window: Uint8Array<ArrayBufferLike> = new Uint8Array(0);
  private origin = 0;

  constructor(readonly source: Source) {}

  /** Call `visit` for each field between two offsets; what it does not read is stepped over. */
  async fields(start: number, end: number, visit: (field: Field) => Promise<void> | void): Promise<void> {
    let at = start;
    while (at < end) {
      const tag = await this.varint(at, end);
      const [number, wire] = [Math.floor(tag.value / 8), tag.value % 8];
      const field: Field = { number, wire, value: 0, start: tag.next, end: tag.next };
      if (field.number === 0) throw new Corrupt(`there is no field 0, at byte ${at}`);
      await this.extent(field, end);
      if (field.end > end) throw new Corrupt(`a field of ${field.end - field.start} bytes at byte ${at} is cut off`);
      await visit(field);
      at = field.end;
    }
  }

  private async extent(field: Field, end: number): Promise<void> {
    if (field.wire === 0 || field.wire === 2) {
      const read = await this.varint(field.start, end);
      field.value = read.value;
      field.end = read.next;
      if (field.wire === 2) [field.start, field.end] = [read.next, read.next + read.value];
    } else if (field.wire === 1 || field.wire === 5) {
      field.end = field.start + (field.wire === 1 ? 8 : 4);
    } else {
      throw new Corrupt(`byte ${field.start - 1} starts no field`);
    }
  }

  /** The bytes of a field. */
  async bytes(field: Field): Promise<Uint8Array> {
    const length = field.end - field.start;
    if (length > LARGEST_TEXT) throw new Corrupt(`a text of ${length} bytes is too long`);
    await this.ensure(field.start, field.end);
    return this.window.subarray(field.start - this.origin, field.end - this.origin);
  }

  async text(field: Field): Promise<string> {
    return new TextDecoder().decode(await this.bytes(field));
  }

  /** Whole numbers, packed or one per field. */
  async numbers(field: Field): Promise<number[]> {
    if (field.wire === 0) return [field.value];
    const found: number[] = [];
    for (let at = field.start; at < field.end; ) {
      const read = await this.varint(at, field.end);
      found.push(read.value);
      at = read.next;
    }
    return found;
  }

  private async varint(at: number, end: number): Promise<{ value: number; next: number }> {
    await this.ensure(at, Math.min(at + 10, end));
    let [value, factor] = [0, 1];
    for (let next = at; next < Math.min(at + 10, end); next++) {
      const byte = this.window[next - this.origin];
      value += (byte & 0x7f) * factor;
      factor *= 128;
      if (byte < 0x80) return { value, next: next + 1 };
    }
    throw new Corrupt(`the number at byte ${at} has no end`);
  }

  private async ensure(from: number, to: number): Promise<void> {
    if (from >= this.origin && to <= this.origin + this.window.length) return;
    const until = Math.min(Math.max(to, from + PIECE), this.source.size);
    this.window = await this.source.read(from, until);
    this.origin = from;
    if (this.window.length < to - from) throw new Corrupt(`the file ends at byte ${from + this.window.length}`);
  }
}
