// Byte stream ↔ size-prefixed frames. Pure and incremental; owns only an unfinished frame, of which
// large pieces stay where they came: it keeps at most one chunk more alive than it has bytes.
//
//   0        4                4 + size
//   +--------+----------------+
//   |  size  |  body          |   size: u32 big-endian, body bytes only
//   +--------+----------------+
//
// Used by the control socket and by instance sockets. It hands out views and never looks into a body.

import { OrchestratorError } from "./errors.ts";
import { GATHER_BLOCK_BYTES, GATHER_FRAME_BYTES } from "./limits.ts";

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

/**
 * Takes a whole large frame in the pieces in which it came, of which the first has at least
 * `GATHER_FRAME_BYTES`; `length` is that of the frame with its prefix. Pieces are views, as chunks are.
 */
export type VisitPieces = (pieces: readonly [Buffer, ...Buffer[]], length: number) => void;

/** Finds whole frames in a stream of chunks, however the stream is cut. */
export class FrameScanner {
  readonly #min: number;
  readonly #max: number;
  readonly #visit: VisitFrame;
  readonly #visitPieces: VisitPieces | undefined;
  /** The unfinished frame, or at first its prefix alone. */
  #partial: Unfinished | undefined;
  #isPrefix = false;

  /**
   * Bodies shorter than `min` or longer than `max` bytes are the peer's fault. Without `visitPieces`
   * every frame that spans chunks is put together.
   */
  constructor(min: number, max: number, visit: VisitFrame, visitPieces?: VisitPieces) {
    this.#min = min;
    this.#max = max;
    this.#visit = visit;
    this.#visitPieces = visitPieces;
  }

  /** Bytes of the unfinished frame that have arrived. */
  get pendingBytes(): number {
    return this.#partial === undefined ? 0 : this.#partial.length - this.#partial.missing;
  }

  /**
   * Visits every frame that `chunk` completes, in order. Keeps an unfinished rest only.
   * @throws `bad_request` or `limit_exceeded` for a size out of bounds: the stream is then lost
   */
  push(chunk: Buffer): void {
    let offset = this.#partial === undefined ? 0 : this.#complete(chunk, this.#partial);
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
    this.#isPrefix = chunk.length - offset < PREFIX_BYTES;
    this.#partial = this.#isPrefix
      ? new Unfinished(PREFIX_BYTES, PREFIX_BYTES)
      : this.#begin(chunk.readUInt32BE(offset));
    this.#partial.take(chunk, offset);
  }

  #begin(size: number): Unfinished {
    const length = PREFIX_BYTES + size;
    const isInPieces = this.#visitPieces !== undefined && length > GATHER_BLOCK_BYTES;
    return new Unfinished(length, isInPieces ? GATHER_FRAME_BYTES : length);
  }

  /** Adds to the unfinished frame; returns how many bytes of `chunk` it took. */
  #complete(chunk: Buffer, unfinished: Unfinished): number {
    let partial = unfinished;
    let offset = partial.take(chunk, 0);
    if (partial.missing > 0) return offset;
    if (this.#isPrefix) {
      const [prefix] = partial.pieces as [Buffer];
      const size = prefix.readUInt32BE(0);
      if (size > this.#max || size < this.#min) throw this.#fault(size);
      this.#isPrefix = false;
      this.#partial = partial = this.#begin(size);
      partial.take(prefix, 0);
      offset = partial.take(chunk, offset);
      if (partial.missing > 0) return offset;
    }
    this.#partial = undefined;
    const { pieces, length } = partial;
    const [first, second] = pieces as [Buffer, Buffer?];
    if (second !== undefined) this.#visitPieces?.(pieces as [Buffer, ...Buffer[]], length);
    else this.#visit(first, new DataView(first.buffer, first.byteOffset, length), 0, length);
    return offset;
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

/** What has arrived of a frame: stretches of so many bytes as they came, shorter ones put together. */
class Unfinished {
  readonly length: number;
  missing: number;
  readonly pieces: Buffer[] = [];
  readonly #blockBytes: number;
  /** The last piece, as long as it is being filled, and how much of it is. */
  #block: Buffer | undefined;
  #filled = 0;

  constructor(length: number, blockBytes: number) {
    this.length = this.missing = length;
    this.#blockBytes = blockBytes;
  }

  /** Takes from `chunk[start]` on what it needs; returns where it stopped. */
  take(chunk: Buffer, start: number): number {
    const end = Math.min(chunk.length, start + this.missing);
    for (let at = start; at < end;) {
      if (this.#block === undefined && end - at >= this.#blockBytes) {
        this.pieces.push(chunk.subarray(at, end));
        this.missing -= end - at;
        break;
      }
      if (this.#block === undefined) {
        this.#block = Buffer.allocUnsafe(Math.min(this.#blockBytes, this.missing));
        this.#filled = 0;
        this.pieces.push(this.#block);
      }
      const taken = chunk.copy(this.#block, this.#filled, at, end);
      this.#filled += taken;
      this.missing -= taken;
      at += taken;
      if (this.#filled === this.#block.length) this.#block = undefined;
    }
    return end;
  }
}

/** What stands before a body of so many bytes. */
export function encodePrefix(bodyBytes: number): Buffer {
  const prefix = Buffer.allocUnsafe(PREFIX_BYTES);
  prefix.writeUInt32BE(bodyBytes, 0);
  return prefix;
}

/** One frame with `body` (text as UTF-8) behind its prefix. */
export function encodeFrame(body: string | Uint8Array): Buffer {
  if (typeof body !== "string") return Buffer.concat([encodePrefix(body.length), body]);
  const size = Buffer.byteLength(body);
  const frame = Buffer.allocUnsafe(PREFIX_BYTES + size);
  frame.writeUInt32BE(size, 0);
  frame.write(body, PREFIX_BYTES);
  return frame;
}
