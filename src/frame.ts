// Byte stream ↔ size-prefixed frames. Pure and incremental; owns only an unfinished frame.
//
//   0        4                4 + size
//   +--------+----------------+
//   |  size  |  body          |   size: u32 big-endian, body bytes only
//   +--------+----------------+
//
// Used by the control socket and by instance sockets. It hands out views and never looks into a body.

import { OrchestratorError } from "./errors.ts";

export const PREFIX_BYTES = 4;

/**
 * Takes one whole frame: `chunk[start, end)`, prefix included; `view` covers the same bytes as
 * `chunk`. The bytes belong to the visitor and are never written to again by the scanner.
 * A visitor that takes whole frames behind this one too returns where it stopped.
 */
export type VisitFrame = (
  chunk: Buffer,
  view: DataView,
  start: number,
  end: number,
) => number | void;

/** Finds whole frames in a stream of chunks, however the stream is cut. */
export class FrameScanner {
  readonly #min: number;
  readonly #max: number;
  readonly #visit: VisitFrame;
  /** The unfinished frame: its prefix alone, or a buffer of its whole length. */
  #partial: Buffer | undefined;
  #filled = 0;

  /** Bodies shorter than `min` or longer than `max` bytes are the peer's fault. */
  constructor(min: number, max: number, visit: VisitFrame) {
    this.#min = min;
    this.#max = max;
    this.#visit = visit;
  }

  /** Bytes of the unfinished frame that have arrived. */
  get pendingBytes(): number {
    return this.#filled;
  }

  /**
   * Visits every frame that `chunk` completes, in order. Keeps a copy of an unfinished rest only.
   * @throws `bad_request` or `limit_exceeded` for a size out of bounds: the stream is then lost
   */
  push(chunk: Buffer): void {
    let offset = this.#partial === undefined ? 0 : this.#complete(chunk);
    const end = chunk.length;
    if (offset === end) return;
    const view = new DataView(chunk.buffer, chunk.byteOffset, end);
    while (end - offset >= PREFIX_BYTES) {
      const size = view.getUint32(offset);
      if (size > this.#max || size < this.#min) throw this.#fault(size);
      const next = offset + PREFIX_BYTES + size;
      if (next > end) break;
      offset = this.#visit(chunk, view, offset, next) ?? next;
    }
    if (offset < end) this.#keep(chunk, offset);
  }

  #keep(chunk: Buffer, offset: number): void {
    const left = chunk.length - offset;
    const whole = left < PREFIX_BYTES ? PREFIX_BYTES : PREFIX_BYTES + chunk.readUInt32BE(offset);
    this.#partial = Buffer.allocUnsafe(whole);
    this.#filled = chunk.copy(this.#partial, 0, offset);
  }

  /** Adds to the unfinished frame; returns how many bytes of `chunk` it took. */
  #complete(chunk: Buffer): number {
    let offset = 0;
    let partial = this.#partial as Buffer;
    if (this.#filled < PREFIX_BYTES) {
      const missing = Math.min(PREFIX_BYTES - this.#filled, chunk.length);
      this.#filled += chunk.copy(partial, this.#filled, 0, missing);
      offset = missing;
      if (this.#filled < PREFIX_BYTES) return offset;
      const size = partial.readUInt32BE(0);
      if (size > this.#max || size < this.#min) throw this.#fault(size);
      const whole = Buffer.allocUnsafe(PREFIX_BYTES + size);
      partial.copy(whole, 0, 0, PREFIX_BYTES);
      this.#partial = partial = whole;
    }
    const taken = Math.min(partial.length - this.#filled, chunk.length - offset);
    this.#filled += chunk.copy(partial, this.#filled, offset, offset + taken);
    if (this.#filled === partial.length) {
      this.#partial = undefined;
      this.#filled = 0;
      const view = new DataView(partial.buffer, partial.byteOffset, partial.length);
      this.#visit(partial, view, 0, partial.length);
    }
    return offset + taken;
  }

  #fault(size: number): OrchestratorError {
    return size > this.#max
      ? new OrchestratorError(
          "limit_exceeded",
          `Cannot read frame: its size is ${size} bytes, more than ${this.#max}`,
        )
      : new OrchestratorError(
          "bad_request",
          `Cannot read frame: its size is ${size} bytes, less than ${this.#min}`,
        );
  }
}

/** One frame with `body` (text as UTF-8) behind its prefix. */
export function encodeFrame(body: string | Uint8Array): Buffer {
  const size = typeof body === "string" ? Buffer.byteLength(body) : body.length;
  const frame = Buffer.allocUnsafe(PREFIX_BYTES + size);
  frame.writeUInt32BE(size, 0);
  if (typeof body === "string") frame.write(body, PREFIX_BYTES);
  else frame.set(body, PREFIX_BYTES);
  return frame;
}
