// Type names as they stand on the wire: compared word by word, found by their bytes, decoded once.
//
// Pure. A table of fixed size holds the names that were seen; a flood of names costs time, not memory.

import { isUtf8 } from "node:buffer";

import { OrchestratorError } from "../errors.ts";
import { TYPE_TABLE_SLOTS } from "../limits.ts";
import { typeNameFault } from "../model.ts";

/** What stands before the type name in a Veecle line, and between it and the payload. */
export const LINE_START = '{"Storable":{"type_name":"';
export const LINE_MIDDLE = '","value":"';

/** Bytes that are looked for again and again, with a view for comparing words. */
export class Pattern {
  readonly bytes: Buffer;
  readonly length: number;
  readonly #view: DataView;

  constructor(text: string) {
    this.bytes = Buffer.from(text);
    this.length = this.bytes.length;
    this.#view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.length);
  }

  /** Writes the pattern at `start`, eight bytes at a time; the caller knows that there is room. */
  writeTo(view: DataView, start: number): number {
    const { length } = this;
    const own = this.#view;
    let i = 0;
    for (; i + 8 <= length; i += 8) view.setFloat64(start + i, own.getFloat64(i, true), true);
    if (length >= 8) view.setFloat64(start + length - 8, own.getFloat64(length - 8, true), true);
    else for (; i < length; i++) view.setUint8(start + i, own.getUint8(i));
    return length;
  }

  /**
   * Whether the pattern stands at `start`; the caller knows that the chunk is long enough. Compares
   * eight bytes at a time as a number: no pattern holds a NUL or an invalid byte, so that none is
   * a zero or not a number, and equal numbers are equal bytes.
   */
  standsAt(chunk: Buffer, view: DataView, start: number): boolean {
    const { length } = this;
    const expected = this.#view;
    let i = 0;
    for (; i + 8 <= length; i += 8) {
      if (expected.getFloat64(i, true) !== view.getFloat64(start + i, true)) return false;
    }
    if (length >= 8) {
      return expected.getFloat64(length - 8, true) === view.getFloat64(start + length - 8, true);
    }
    for (; i < length; i++) if (this.bytes[i] !== chunk[start + i]) return false;
    return true;
  }
}

/** A type name that was seen on the wire, with the bytes that surround a payload in each dialect. */
export class TypeName {
  readonly text: string;
  /** UTF-8. */
  readonly name: Pattern;
  /** The beginning of a Veecle line, up to the payload. */
  readonly lineHead: Pattern;
  /** Whether the name stands in a line as it is, without escapes. */
  readonly isPlain: boolean;
  /** Where the table keeps it. */
  readonly slot: number;

  constructor(text: string, slot: number = 0) {
    this.text = text;
    this.slot = slot;
    this.name = new Pattern(text);
    const quoted = JSON.stringify(text);
    this.isPlain = quoted.length === text.length + 2;
    this.lineHead = new Pattern(`${LINE_START}${quoted.slice(1, -1)}${LINE_MIDDLE}`);
  }
}

/** Decoded type names, found by their bytes. Fixed size: a new name may take an older one's place. */
export class TypeTable {
  readonly #slots: (TypeName | undefined)[] = new Array<TypeName | undefined>(TYPE_TABLE_SLOTS);
  readonly #followers: (TypeName | undefined)[] = new Array<TypeName | undefined>(TYPE_TABLE_SLOTS);

  /** The type that followed this one last: a guess that saves a search when types take turns. */
  followerOf(type: TypeName): TypeName | undefined {
    return this.#followers[type.slot];
  }

  setFollower(type: TypeName, follower: TypeName): void {
    this.#followers[type.slot] = follower;
  }

  /**
   * The type name whose bytes are `chunk[start, start + length)`.
   * @throws `bad_request` if they are no type name
   */
  find(chunk: Buffer, view: DataView, start: number, length: number): TypeName {
    let hash = length;
    const end = start + length;
    if (length >= 8) {
      const middle = (start + end) >>> 1;
      hash = Math.imul(hash ^ view.getInt32(end - 4, true), 0x9e3779b1);
      hash = Math.imul(hash ^ view.getInt32(middle - 2, true), 0x85ebca6b);
    } else {
      for (let i = start; i < end; i++) hash = Math.imul(hash ^ (chunk[i] as number), 0x9e3779b1);
    }
    const slot = (hash ^ (hash >>> 15)) & (TYPE_TABLE_SLOTS - 1);
    const known = this.#slots[slot];
    if (known?.name.length === length && known.name.standsAt(chunk, view, start)) return known;
    const bytes = chunk.subarray(start, end);
    if (!isUtf8(bytes)) throw bad("the type name is not valid UTF-8");
    const text = bytes.toString();
    const fault = typeNameFault(text);
    if (fault !== undefined) throw bad(`the type name cannot be used: ${fault}`);
    const type = new TypeName(text, slot);
    this.#slots[slot] = type;
    return type;
  }
}

function bad(reason: string): OrchestratorError {
  return new OrchestratorError("bad_request", `Cannot read message: ${reason}`);
}
