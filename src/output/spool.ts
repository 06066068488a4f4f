// Captured output of one instance on its way to the disk: bounded, batched, one write under way.
//
// When it is full the child waits, for a moment that nobody notices; then lines are dropped and
// counted until half of it is written, and a note in their place says how many. A disk that refuses
// is a disk that is slow: what waits is offered again until it is taken.

import {
  MAX_SPOOL_BYTES,
  MAX_TOTAL_SPOOL_BYTES,
  MIN_SPOOL_BYTES,
  RECORD_OVERHEAD_BYTES,
  SPOOL_PATIENCE_MS,
  SPOOL_RETRY_MS,
} from "../limits.ts";
import { countLines, type OutputRecord, type RecordStream } from "./recording.ts";

/** Divides what all spools together may hold among those that hold anything. */
export class SpoolShare {
  /** Spools that hold something. */
  active = 0;

  get maxBytes(): number {
    const share = Math.floor(MAX_TOTAL_SPOOL_BYTES / Math.max(1, this.active));
    return Math.max(MIN_SPOOL_BYTES, Math.min(MAX_SPOOL_BYTES, share));
  }
}

export interface SpoolOptions {
  readonly share: SpoolShare;
  /** Writes the first of these records and says how many; rejects if it wrote none. */
  write(records: readonly OutputRecord[]): Promise<number>;
  /** Everything is written. */
  onEmpty(): void;
  /** The disk begins to refuse, with its reason; or takes everything again, with nothing. */
  onTrouble(fault: unknown): void;
  /** Milliseconds since 1970. */
  now(): number;
  after(ms: number, action: () => void): () => void;
}

interface Waiting extends OutputRecord {
  /** Freed when the record is written. */
  readonly chunk: Uint8Array | undefined;
}

/** What waits for the disk. */
export class Spool {
  readonly #options: SpoolOptions;
  readonly #records: Waiting[] = [];
  #bytes = 0;
  #pushed = 0;
  #written = 0;
  #writing: Promise<void> | undefined;
  #cancelRetry: (() => void) | undefined;
  /** The last write was refused. */
  #isRefused = false;
  /** For those who wait for room, since the first of them does. */
  #room: { readonly promise: Promise<void>; end(): void } | undefined;
  #isDropping = false;
  #droppedHere = 0;
  #droppedLines = 0;
  #isClosed = false;
  /** For those who wait until so many records are written. */
  #watchers: { readonly count: number; resolve(): void }[] = [];

  constructor(options: SpoolOptions) {
    this.#options = options;
  }

  /** Lines that never came to the disk. */
  get droppedLines(): number {
    return this.#droppedLines;
  }

  get isEmpty(): boolean {
    return this.#records.length === 0;
  }

  /**
   * Takes whole lines, and `chunk`, of which they may be views and which nobody else uses: its memory
   * is freed when they are written.
   * @returns a promise if the child should wait; it settles soon
   */
  push(
    stream: RecordStream,
    regions: readonly Buffer[],
    chunk: Uint8Array | undefined,
  ): Promise<void> | undefined {
    if (this.#isDropping || this.#isClosed) {
      const count = regions.reduce((sum, region) => sum + countLines(region), 0);
      if (!this.#isClosed) this.#droppedHere += count;
      this.#droppedLines += count;
    }
    if (this.#isDropping || this.#isClosed || regions.length === 0) {
      free(chunk);
      return undefined;
    }
    this.#add(stream, regions, chunk);
    this.#start();
    return this.#bytes > this.#options.share.maxBytes ? this.#waitForRoom() : undefined;
  }

  /** Settles when everything that has been pushed until now is written, or the disk refuses it. */
  async written(): Promise<void> {
    if (this.isEmpty || this.#isRefused) return;
    await new Promise<void>((resolve) => {
      this.#watchers.push({ count: this.#pushed, resolve });
    });
  }

  /** Takes nothing more; settles when no write is under way and none will be. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#endDropping();
    this.#room?.end();
    await this.written();
    this.#cancelRetry?.();
    await this.#writing;
    if (!this.isEmpty) this.#options.share.active--;
    this.#records.length = 0;
  }

  #add(stream: RecordStream, regions: readonly Buffer[], chunk: Uint8Array | undefined): void {
    const length = regions.reduce((sum, region) => sum + region.length, 0);
    if (this.isEmpty) this.#options.share.active++;
    this.#records.push({ time: this.#options.now(), stream, regions, length, chunk });
    this.#bytes += length + RECORD_OVERHEAD_BYTES;
    this.#pushed++;
  }

  #waitForRoom(): Promise<void> {
    if (this.#room !== undefined) return this.#room.promise;
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = this.#options.after(SPOOL_PATIENCE_MS, () => {
      this.#isDropping = true;
      this.#room?.end();
    });
    const end = (): void => {
      this.#room = undefined;
      cancel();
      resolve();
    };
    this.#room = { promise, end };
    return promise;
  }

  #start(): void {
    if (this.#writing !== undefined || this.#cancelRetry !== undefined) return;
    this.#writing = this.#writeAll();
  }

  async #writeAll(): Promise<void> {
    while (!this.isEmpty) {
      try {
        this.#settle(await this.#options.write(this.#records));
      } catch (error) {
        this.#refused(error);
        break;
      }
    }
    this.#writing = undefined;
    if (this.isEmpty) this.#options.onEmpty();
  }

  #settle(count: number): void {
    for (const { chunk, length } of this.#records.splice(0, count)) {
      free(chunk);
      this.#bytes -= length + RECORD_OVERHEAD_BYTES;
    }
    this.#written += count;
    if (this.isEmpty) this.#options.share.active--;
    if (this.#isRefused) this.#options.onTrouble(undefined);
    this.#isRefused = false;
    if (this.#bytes <= this.#options.share.maxBytes / 2) {
      this.#room?.end();
      this.#endDropping();
    }
    this.#tellWatchers(this.#written);
  }

  #refused(error: unknown): void {
    if (!this.#isRefused) this.#options.onTrouble(error);
    this.#isRefused = true;
    this.#tellWatchers(Infinity);
    if (this.#isClosed) return;
    this.#cancelRetry = this.#options.after(SPOOL_RETRY_MS, () => {
      this.#cancelRetry = undefined;
      this.#start();
    });
  }

  #endDropping(): void {
    this.#isDropping = false;
    if (this.#droppedHere === 0) return;
    const note = `[veecle-orchestrator: ${this.#droppedHere} lines dropped: the disk is too slow]\n`;
    this.#droppedHere = 0;
    this.#add("note", [Buffer.from(note)], undefined);
    this.#start();
  }

  #tellWatchers(count: number): void {
    const ready = this.#watchers.filter((watcher) => watcher.count <= count);
    this.#watchers = this.#watchers.filter((watcher) => watcher.count > count);
    for (const { resolve } of ready) resolve();
  }
}

/**
 * Gives back the memory of a chunk at once. The collector would do it tens of megabytes later: it
 * does not hurry for a program that has so little else.
 */
function free(chunk: Uint8Array | undefined): void {
  if (chunk?.buffer instanceof ArrayBuffer && chunk.length === chunk.buffer.byteLength) {
    chunk.buffer.transfer(0);
  }
}
