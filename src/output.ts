// Captured standard output and standard error of one instance, as whole lines, for its followers.
//
// Never holds a child up and never grows: what nobody follows is forgotten, and a follower that
// reads too slowly loses its oldest lines and is told how many. Issues no system call.

import { MAX_FOLLOWER_BYTES, MAX_OUTPUT_LINE_BYTES } from "./limits.ts";
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
    const end = chunk.lastIndexOf(NEWLINE) + 1;
    let region: Buffer | undefined;
    if (end > 0) {
      region = this.#bytes > 0 ? this.#take(chunk.subarray(0, end)) : chunk.subarray(0, end);
    }
    const pieces = region === undefined ? [] : [region];
    for (let at = end; at < chunk.length;) {
      const taken = Math.min(chunk.length - at, MAX_OUTPUT_LINE_BYTES - this.#bytes);
      this.#partial.push(Buffer.from(chunk.subarray(at, at + taken)));
      this.#bytes += taken;
      at += taken;
      if (this.#bytes === MAX_OUTPUT_LINE_BYTES) pieces.push(this.#take(NEWLINE_BYTE));
    }
    return pieces.length > 1 ? Buffer.concat(pieces) : pieces[0];
  }

  /** The last line, which has no end, as a whole one. */
  end(): Buffer | undefined {
    return this.#bytes > 0 ? this.#take(NEWLINE_BYTE) : undefined;
  }

  #take(last: Buffer): Buffer {
    const region = Buffer.concat([...this.#partial, last]);
    this.#partial = [];
    this.#bytes = 0;
    return region;
  }
}

const NEWLINE_BYTE = Buffer.from("\n");

/** The output of one instance, across its restarts. */
export class Output {
  readonly #followers: Set<Follower> = new Set();
  #streams = { stdout: new LineJoiner(), stderr: new LineJoiner() };

  /** Takes bytes that the instance wrote. */
  append(stream: "stdout" | "stderr", chunk: Uint8Array): void {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    this.#publish(this.#streams[stream].push(bytes));
  }

  /** The process is gone: a last line without an end is finished. */
  finishLines(): void {
    this.#publish(this.#streams.stdout.end());
    this.#publish(this.#streams.stderr.end());
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
    this.finishLines();
    for (const follower of this.#followers) follower.end();
    this.#followers.clear();
  }

  #publish(region: Buffer | undefined): void {
    if (region === undefined) return;
    for (const follower of this.#followers) follower.push(region);
  }
}
