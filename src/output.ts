// Captured standard output and standard error of one instance, as whole lines: for its followers, and
// for the disk.
//
// Never grows: a follower that reads too slowly loses its oldest lines and is told how many, and for
// the disk a child waits a moment at most. Issues no system call.

import type { HistoryFiles, OutputStorage } from "./output/history.ts";
import {
  LAST_WORDS_BYTES,
  MAX_FOLLOWER_BYTES,
  MAX_LINE_PIECES,
  MAX_OUTPUT_LINE_BYTES,
  MAX_RECORD_BYTES,
  RECORD_OVERHEAD_BYTES,
} from "./limits.ts";
import { NEWLINE } from "./lines.ts";
import { countLines } from "./output/recording.ts";
import { Spool } from "./output/spool.ts";

/** One reader of an instance's output. */
export class Follower {
  readonly #regions: Buffer[] = [];
  #bytes = 0;
  #droppedLines = 0;
  #isEnded = false;
  readonly #wake: () => void;

  /** `wake` is called when there is something to take, or the end was reached. */
  constructor(wake: () => void) {
    this.#wake = wake;
  }

  /** No more lines come; what is waiting can still be taken. */
  get isEnded(): boolean {
    return this.#isEnded;
  }

  /** Adds whole lines; drops the oldest beyond the bound. The bytes are not copied. */
  push(region: Buffer): void {
    this.#regions.push(region);
    this.#bytes += region.length + RECORD_OVERHEAD_BYTES;
    while (this.#bytes > MAX_FOLLOWER_BYTES && this.#regions.length > 1) {
      const oldest = this.#regions.shift() as Buffer;
      this.#bytes -= oldest.length + RECORD_OVERHEAD_BYTES;
      this.#droppedLines += countLines(oldest);
    }
    this.#wake();
  }

  end(): void {
    this.#isEnded = true;
    this.#wake();
  }

  /** The next whole lines, oldest first, or undefined if none wait. */
  take(): Buffer | undefined {
    if (this.#droppedLines > 0) {
      const note = `[veecle-orchestrator: ${this.#droppedLines} lines dropped, this reader is too slow]\n`;
      this.#droppedLines = 0;
      return Buffer.from(note);
    }
    const region = this.#regions.shift();
    if (region !== undefined) this.#bytes -= region.length + RECORD_OVERHEAD_BYTES;
    return region;
  }
}

/** Joins the chunks of one stream to whole lines; a line without an end is cut into pieces. */
class LineJoiner {
  #partial: Buffer[] = [];
  #bytes = 0;

  /** The whole lines that `chunk` completes, in order; views of it where that is possible. */
  push(chunk: Buffer): Buffer[] {
    const regions: Buffer[] = [];
    let start = this.#finishPartial(chunk, regions); // of what was not handed on yet
    for (let line = start; ;) {
      const newline = chunk.lastIndexOf(NEWLINE, line + MAX_OUTPUT_LINE_BYTES);
      if (newline >= line) {
        line = newline + 1; // whatever ends within reach has no line in it that is too long
        continue;
      }
      if (line > start) regions.push(chunk.subarray(start, line));
      start = line;
      if (chunk.length - line <= MAX_OUTPUT_LINE_BYTES) break;
      start = line += MAX_OUTPUT_LINE_BYTES;
      regions.push(Buffer.concat([chunk.subarray(start - MAX_OUTPUT_LINE_BYTES, start), CUT]));
    }
    if (start < chunk.length) this.#keep(chunk.subarray(start));
    return regions;
  }

  /** The last line, which has no end, as a whole one. */
  end(): Buffer[] {
    return this.#bytes > 0 ? [this.#take(CUT)] : [];
  }

  /** Ends the line that was kept, or cuts it; returns where in `chunk` the next one begins. */
  #finishPartial(chunk: Buffer, regions: Buffer[]): number {
    if (this.#bytes === 0) return 0;
    const room = MAX_OUTPUT_LINE_BYTES - this.#bytes;
    const newline = chunk.indexOf(NEWLINE);
    if (newline >= 0 && newline <= room) {
      regions.push(this.#take(chunk.subarray(0, newline + 1)));
      return newline + 1;
    }
    if (newline < 0 && chunk.length <= room) {
      this.#keep(chunk);
      return chunk.length;
    }
    regions.push(this.#take(chunk.subarray(0, room), CUT));
    return room;
  }

  #keep(rest: Buffer): void {
    this.#partial.push(Buffer.from(rest)); // a copy, so that it does not keep the chunk
    if (this.#partial.length === MAX_LINE_PIECES) this.#partial = [Buffer.concat(this.#partial)];
    this.#bytes += rest.length;
  }

  #take(...last: Buffer[]): Buffer {
    const region = Buffer.concat([...this.#partial, ...last]);
    this.#partial = [];
    this.#bytes = 0;
    return region;
  }
}

/** The end of a line that has none of its own. */
const CUT = Buffer.from("\n");

/** The output of one process of an instance; it may outlive the process in what it has started. */
export interface OutputSink {
  /**
   * Takes bytes that were written; the chunk is not used by anybody else from then on.
   * @returns a promise if no more should be taken until it settles, which is soon
   */
  append(stream: "stdout" | "stderr", chunk: Uint8Array): Promise<void> | undefined;
  /** Nobody can write any more: a last line without an end is finished. Called once. */
  end(): void;
  /** The last line on standard error, cut to what fits into a log line: why it ended, perhaps. */
  lastWords(): string | undefined;
}

/** The output of one instance, across its restarts. */
export class Output {
  readonly #followers: Set<Follower> = new Set();
  readonly #storage: OutputStorage | undefined;
  readonly #spool: Spool | undefined;
  /** Of processes whose output has not ended: what finishes their last lines. */
  readonly #writers: Set<() => void> = new Set();
  readonly #quiet: (() => void)[] = [];

  /** Without a storage, what nobody follows is forgotten. */
  constructor(storage?: OutputStorage) {
    this.#storage = storage;
    if (storage === undefined) return;
    this.#spool = new Spool({
      ...storage,
      write: (records) => storage.files.append(records),
      onEmpty: () => this.#rest(),
    });
  }

  /** Milliseconds since 1970, by the clock of what is kept; 0 if nothing is. */
  now(): number {
    return this.#storage?.now() ?? 0;
  }

  /** The files, when everything that came until now is in them; undefined if nothing is kept. */
  async history(): Promise<HistoryFiles | undefined> {
    await this.#spool?.written();
    await this.#storage?.files.look();
    return this.#storage?.files;
  }

  /** Lines that the disk was too slow for. */
  get droppedLines(): number {
    return this.#spool?.droppedLines ?? 0;
  }

  /** For a new process, whose lines must not mix with those of its predecessor. */
  open(): OutputSink {
    const streams = { stdout: new LineJoiner(), stderr: new LineJoiner() };
    let last: Buffer | undefined;
    const publish = (
      stream: "stdout" | "stderr",
      regions: readonly Buffer[],
      chunk?: Uint8Array,
    ): Promise<void> | undefined => {
      if (stream === "stderr") {
        const region = regions.at(-1);
        if (region !== undefined) last = Buffer.from(region.subarray(-LAST_WORDS_BYTES));
      }
      for (const region of regions) this.#publish(region);
      return this.#spool?.push(stream, regions, this.#followers.size === 0 ? chunk : undefined);
    };
    const finish = (): void => {
      publish("stdout", streams.stdout.end());
      publish("stderr", streams.stderr.end());
    };
    this.#writers.add(finish);
    return {
      append: (stream, chunk) => {
        const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
        if (bytes.length <= MAX_RECORD_BYTES) {
          return publish(stream, streams[stream].push(bytes), chunk);
        }
        let room: Promise<void> | undefined;
        for (let at = 0; at < bytes.length; at += MAX_RECORD_BYTES) {
          const part = bytes.subarray(at, at + MAX_RECORD_BYTES);
          room = publish(stream, streams[stream].push(part)) ?? room;
        }
        return room;
      },
      end: () => {
        finish();
        this.#writers.delete(finish);
        if (this.#writers.size > 0) return;
        for (const resolve of this.#quiet.splice(0)) resolve();
        this.#rest();
      },
      lastWords: () => last?.toString().trimEnd().split("\n").at(-1),
    };
  }

  /** Follows from now on, until the follower is removed or the instance is. */
  follow(follower: Follower): void {
    this.#followers.add(follower);
  }

  unfollow(follower: Follower): void {
    this.#followers.delete(follower);
  }

  /** Settles when no process can write any more. */
  async quiet(): Promise<void> {
    if (this.#writers.size > 0) await new Promise<void>((resolve) => this.#quiet.push(resolve));
  }

  /** The instance is removed, or the daemon ends: every follower comes to its end. */
  end(): void {
    for (const follower of this.#followers) follower.end();
    this.#followers.clear();
  }

  /** Settles when the disk has what it takes, and its files are closed. Nothing more is kept. */
  async close(): Promise<void> {
    for (const finish of this.#writers) finish(); // nobody reads on what others hold open still
    await this.#spool?.close();
    await this.#storage?.files.rest();
  }

  /** Keeps no file open for a program that does not run. */
  #rest(): void {
    if (this.#writers.size > 0 || this.#spool?.isEmpty === false) return;
    this.#storage?.files.rest().catch((fault: unknown) => this.#storage?.onTrouble(fault));
  }

  #publish(region: Buffer): void {
    for (const follower of this.#followers) follower.push(region);
  }
}
