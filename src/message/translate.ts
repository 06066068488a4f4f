// Messages of one dialect → the same messages in the other, a block at a time.
//
//   native   | size | kind 1 | flags | n | type name | payload |
//   Veecle   {"Storable":{"type_name":"<type name>","value":"<payload, escaped>"}}\n
//
// One pass: four bytes are read, looked at and written at once; only what needs an escape, or ends
// one, is handled alone. Pure; owns one block, which its next call writes over.

import { isUtf8 } from "node:buffer";

import { MAX_VEECLE_LINE_BYTES } from "../limits.ts";
import {
  type Dialect,
  firstByte,
  HEADER_BYTES,
  HIGH_BITS,
  KIND,
  LINE_END,
  specialBytes,
} from "../message.ts";
import type { TypeName } from "./typename.ts";

const BLOCK_BYTES = 256 * 1024;
const BACKSLASH = 0x5c;
const LINE_END_WORD = Buffer.from(LINE_END).readInt32LE(0);

/** What follows a backslash for a byte, and the byte for what follows a backslash; 0: none. */
const ESCAPE_OF = new Uint8Array(256);
const MEANING_OF = new Uint8Array(256);
for (const [byte, letter] of ['""', "\\\\", "\bb", "\ff", "\nn", "\rr", "\tt"]) {
  ESCAPE_OF[byte!.charCodeAt(0)] = letter!.charCodeAt(0);
  MEANING_OF[letter!.charCodeAt(0)] = byte!.charCodeAt(0);
}
MEANING_OF[0x2f] = 0x2f;

/** Translates stretches of messages of one type. */
export class Translator {
  #block: Buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  #view: DataView = viewOf(this.#block);
  /** How much of the block the last call filled, and with how many messages. */
  filled = 0;
  count = 0;
  /** Messages that the last call left out. */
  notUtf8 = 0;
  oversize = 0;

  /** The messages of the last call; valid until the next one. */
  get bytes(): Buffer {
    return this.#block.subarray(0, this.filled);
  }

  /** Whether a buffer lies in the block, and will be written over. */
  owns(bytes: Buffer): boolean {
    return bytes.buffer === this.#block.buffer;
  }

  /**
   * Translates whole messages in `chunk[start, end)` until they are done or the block is full;
   * returns where it stopped. `longest` is the length of the longest of them; lines of more than
   * `maxLine` bytes, their newline included, are left out.
   */
  translate(
    type: TypeName,
    from: Dialect,
    chunk: Buffer,
    start: number,
    end: number,
    longest: number,
    maxLine: number = MAX_VEECLE_LINE_BYTES + 1,
  ): number {
    this.filled = this.count = this.notUtf8 = this.oversize = 0;
    const room = from === "native" ? 6 * maxLine : longest;
    this.#reserve(room + type.lineHead.length + LINE_END.length);
    const view = viewOf(chunk);
    const last = this.#block.length - room - type.lineHead.length - LINE_END.length;
    let at = start;
    while (at < end && this.filled <= last) {
      at =
        from === "native"
          ? this.#line(type, chunk, view, at, maxLine)
          : this.#frame(type, chunk, view, at, end);
    }
    return at;
  }

  /** A frame at `start` as a line; returns the end of the frame. */
  #line(type: TypeName, chunk: Buffer, view: DataView, start: number, maxLine: number): number {
    const end = start + 4 + view.getUint32(start);
    const payload = start + HEADER_BYTES + type.name.length;
    const begin = this.filled;
    if (type.lineHead.length + end - payload + LINE_END.length > maxLine) {
      this.oversize++;
      return end;
    }
    const block = this.#block;
    const out = this.#view;
    let to = begin + type.lineHead.writeTo(out, begin);
    let seen = 0; // all bytes of the payload, one over the other
    let i = payload;
    while (i + 4 <= end) {
      const word = view.getInt32(i, true);
      out.setInt32(to, word, true);
      seen |= word;
      const found = specialBytes(word);
      if (found === 0) {
        i += 4;
        to += 4;
        continue;
      }
      const plain = firstByte(found);
      i += plain;
      to = writeEscaped(block, to + plain, chunk[i++] as number);
    }
    for (; i < end; i++) {
      seen |= chunk[i] as number;
      to = writeEscaped(block, to, chunk[i] as number);
    }
    out.setInt32(to, LINE_END_WORD, true);
    to += 4;
    if ((seen & HIGH_BITS) !== 0 && !isUtf8(chunk.subarray(payload, end))) this.notUtf8++;
    else if (to - begin > maxLine) this.oversize++;
    else {
      this.filled = to;
      this.count++;
    }
    return end;
  }

  /** A line in its usual form at `start` as a frame; returns the end of the line. */
  #frame(type: TypeName, chunk: Buffer, view: DataView, start: number, end: number): number {
    const block = this.#block;
    const out = this.#view;
    const begin = this.filled;
    let to = begin + HEADER_BYTES;
    to += type.name.writeTo(out, to);
    let i = start + type.lineHead.length;
    while (i + 4 <= end) {
      const word = view.getInt32(i, true);
      out.setInt32(to, word, true);
      const found = specialBytes(word);
      if (found === 0) {
        i += 4;
        to += 4;
        continue;
      }
      const plain = firstByte(found);
      i += plain;
      to += plain;
      const byte = chunk[i] as number;
      if (byte === 0x22) break;
      if (byte !== BACKSLASH) {
        block[to++] = byte;
        i++;
      } else if (chunk[i + 1] === 0x75) {
        // In its usual form a line has \u for control characters only.
        block[to++] = Number.parseInt(chunk.toString("latin1", i + 2, i + 6), 16);
        i += 6;
      } else {
        block[to++] = MEANING_OF[chunk[i + 1] as number] as number;
        i += 2;
      }
    }
    out.setUint32(begin, to - begin - 4);
    out.setUint32(begin + 4, (KIND.data << 24) | type.name.length);
    this.filled = to;
    this.count++;
    return i + LINE_END.length;
  }

  #reserve(bytes: number): void {
    if (this.#block.length >= 2 * bytes) return;
    this.#block = Buffer.allocUnsafeSlow(2 * bytes);
    this.#view = viewOf(this.#block);
  }
}

function writeEscaped(block: Buffer, at: number, byte: number): number {
  const letter = ESCAPE_OF[byte] as number;
  if (letter !== 0) {
    block[at] = BACKSLASH;
    block[at + 1] = letter;
    return at + 2;
  }
  if (byte < 0x20)
    return at + block.write(`\\u${byte.toString(16).padStart(4, "0")}`, at, "latin1");
  block[at] = byte;
  return at + 1;
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
