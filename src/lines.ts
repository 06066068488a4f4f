// Byte stream ↔ lines ending in "\n". Pure and incremental; owns only an unfinished line.
//
// Hands out regions of whole lines as views of the chunk they arrived in. A region may be left
// early: bytes that are announced as raw (an upload) are then handed on without looking for lines.

import { OrchestratorError } from "./errors.ts";

export const NEWLINE = 0x0a;
const RETURN = 0x0d;

/**
 * Takes the whole lines in `chunk[start, end)`, each with its newline, and returns where it
 * stopped: `end`, or the end of an earlier line after which `expectRaw` was called.
 */
export type VisitLines = (chunk: Buffer, start: number, end: number) => number;

/** Finds whole lines in a stream of chunks, however the stream is cut. */
export class LineScanner {
  readonly #max: number;
  readonly #visit: VisitLines;
  #visitRaw: (bytes: Buffer) => void = () => {};
  #raw = 0;
  #partial: Buffer = Buffer.alloc(0);
  #filled = 0;

  /** Unfinished lines longer than `max` bytes are the peer's fault; whole ones are for `visit` to judge. */
  constructor(max: number, visit: VisitLines) {
    this.#max = max;
    this.#visit = visit;
  }

  /** Bytes of the unfinished line that have arrived. */
  get pendingBytes(): number {
    return this.#filled;
  }

  /** Hands the next `length` bytes to `visit` as they come, then goes on with lines. */
  expectRaw(length: number, visit: (bytes: Buffer) => void): void {
    this.#raw = length;
    this.#visitRaw = visit;
  }

  /**
   * Visits every line that `chunk` completes, in order. Keeps a copy of an unfinished rest only.
   * @throws `limit_exceeded` for a line without an end: the stream is then lost
   */
  push(chunk: Buffer): void {
    const length = chunk.length;
    let offset = 0;
    let last = -1; // end of the last whole line; unknown as long as it is -1
    while (offset < length) {
      if (this.#raw > 0) {
        const taken = Math.min(this.#raw, length - offset);
        this.#raw -= taken;
        this.#visitRaw(chunk.subarray(offset, offset + taken));
        offset += taken;
      } else if (this.#filled > 0) {
        const newline = chunk.indexOf(NEWLINE, offset);
        const end = newline < 0 ? length : newline + 1;
        this.#keep(chunk, offset, end);
        offset = end;
        if (newline >= 0) this.#visitPartial();
      } else {
        if (last < 0) last = chunk.lastIndexOf(NEWLINE) + 1;
        if (last <= offset) {
          this.#keep(chunk, offset, length);
          return;
        }
        offset = this.#visit(chunk, offset, last);
      }
    }
  }

  /** Gives up the unfinished line: no more of it comes. */
  takePending(): Buffer {
    const pending = this.#partial.subarray(0, this.#filled);
    this.#partial = Buffer.alloc(0);
    this.#filled = 0;
    return pending;
  }

  #visitPartial(): void {
    const line = Buffer.from(this.#partial.subarray(0, this.#filled));
    this.#filled = 0;
    if (this.#partial.length > 64 * 1024) this.#partial = Buffer.alloc(0);
    this.#visit(line, 0, line.length);
  }

  #keep(chunk: Buffer, start: number, end: number): void {
    const filled = this.#filled + end - start;
    if (filled > this.#max + 2) {
      throw new OrchestratorError(
        "limit_exceeded",
        `Cannot read line: it is longer than ${this.#max} bytes`,
      );
    }
    if (filled > this.#partial.length) {
      const grown = Buffer.allocUnsafe(Math.max(filled, 2 * this.#partial.length, 256));
      this.#partial.copy(grown, 0, 0, this.#filled);
      this.#partial = grown;
    }
    chunk.copy(this.#partial, this.#filled, start, end);
    this.#filled = filled;
  }
}

/** Where the text of the line `chunk[start, end)` ends: before "\n" or "\r\n". */
export function lineTextEnd(chunk: Uint8Array, start: number, end: number): number {
  const text = end - 1;
  return text > start && chunk[text - 1] === RETURN ? text - 1 : text;
}

/** Behind white space that JSON allows between tokens. */
export function skipSpace(bytes: Buffer, start: number, end: number): number {
  let at = start;
  while (at < end && isSpace(bytes[at] as number)) at++;
  return at;
}

/** Before white space that JSON allows between tokens. */
export function skipSpaceBack(bytes: Buffer, start: number, end: number): number {
  let at = end;
  while (at > start && isSpace(bytes[at - 1] as number)) at--;
  return at;
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x09 || byte === 0x0a || byte === 0x0d;
}
