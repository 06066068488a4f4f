// Captured standard output and standard error of one instance, as whole lines, for its followers.
//
// Never holds a child up and never grows: what nobody follows is forgotten, and a follower that
// reads too slowly loses its oldest lines and is told how many. Issues no system call.

import { LAST_WORDS_BYTES, MAX_FOLLOWER_BYTES, MAX_OUTPUT_LINE_BYTES } from "./limits.ts";
import { NEWLINE } from "./lines.ts";

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
    this.#bytes += region.length;
    while (this.#bytes > MAX_FOLLOWER_BYTES && this.#regions.length > 1) {
      const oldest = this.#regions.shift() as Buffer;
      this.#bytes -= oldest.length;
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
    if (region !== undefined) this.#bytes -= region.length;
    return region;
  }
}

function countLines(region: Buffer): number {
  let count = 0;
  for (let at = region.indexOf(NEWLINE); at >= 0; at = region.indexOf(NEWLINE, at + 1)) count++;
  return count;
}

/** Joins the chunks of one stream to whole lines; a line without an end is cut into pieces. */
class LineJoiner {
  #partial: Buffer[] = [];
  #bytes = 0;

  /** The whole lines that `chunk` completes, or undefined. */
  push(chunk: Buffer): Buffer | undefined {
    const regions: Buffer[] = [];
    let start = 0; // of what was not handed on yet
    for (let at = 0; at < chunk.length;) {
      const newline = chunk.indexOf(NEWLINE, at);
      const end = newline < 0 ? chunk.length : newline;
      const room = MAX_OUTPUT_LINE_BYTES - this.#bytes;
      if (end - at > room) {
        regions.push(chunk.subarray(start, at), this.#take(chunk.subarray(at, at + room), CUT));
        start = at += room;
      } else if (newline < 0) {
        regions.push(chunk.subarray(start, at));
        this.#keep(chunk.subarray(at));
        start = at = chunk.length;
      } else if (this.#bytes > 0) {
        regions.push(this.#take(chunk.subarray(at, newline + 1)));
        start = at = newline + 1;
      } else at = newline + 1;
    }
    regions.push(chunk.subarray(start));
    const filled = regions.filter((region) => region.length > 0);
    return filled.length > 1 ? Buffer.concat(filled) : filled[0];
  }

  /** The last line, which has no end, as a whole one. */
  end(): Buffer | undefined {
    return this.#bytes > 0 ? this.#take(CUT) : undefined;
  }

  #keep(rest: Buffer): void {
    this.#partial.push(Buffer.from(rest)); // a copy, so that it does not keep the chunk
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
  /** Takes bytes that were written. */
  append(stream: "stdout" | "stderr", chunk: Uint8Array): void;
  /** Nobody can write any more: a last line without an end is finished. */
  end(): void;
  /** The last line on standard error, cut to what fits into a log line: why it ended, perhaps. */
  lastWords(): string | undefined;
}

/** The output of one instance, across its restarts. */
export class Output {
  readonly #followers: Set<Follower> = new Set();

  /** For a new process, whose lines must not mix with those of its predecessor. */
  open(): OutputSink {
    const streams = { stdout: new LineJoiner(), stderr: new LineJoiner() };
    let last: Buffer | undefined;
    const publish = (stream: "stdout" | "stderr", region: Buffer | undefined): void => {
      if (region === undefined) return;
      if (stream === "stderr") last = Buffer.from(region.subarray(-LAST_WORDS_BYTES));
      this.#publish(region);
    };
    return {
      append: (stream, chunk) => {
        const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
        publish(stream, streams[stream].push(bytes));
      },
      end: () => {
        publish("stdout", streams.stdout.end());
        publish("stderr", streams.stderr.end());
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

  /** The instance is removed: every follower comes to its end. */
  end(): void {
    for (const follower of this.#followers) follower.end();
    this.#followers.clear();
  }

  #publish(region: Buffer): void {
    for (const follower of this.#followers) follower.push(region);
  }
}
