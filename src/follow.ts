// The lines of a followed stream between the connection they arrive on and whoever takes them.
//
// Pure: owns lines that nobody has taken yet and asks for a pause of the connection when they become
// too many. `client.ts` feeds it.

import { MAX_FOLLOWER_BYTES } from "./limits.ts";

/** Counted for each line besides its bytes, so that empty lines are bounded too. */
const LINE_OVERHEAD_BYTES = 4;

/** How a follower stops and starts the bytes of its connection. */
interface Flow {
  pause(): void;
  resume(): void;
  close(): void;
}

/**
 * The output of an instance from the time of `ready` on: one item per line, without its newline.
 * While nobody takes the lines, the connection is not read. Leaving the loop ends the connection.
 */
export class Follow implements AsyncIterable<Uint8Array> {
  /** Settles when the daemon has accepted or refused. */
  readonly ready: Promise<void>;
  readonly #flow: Flow;
  #lines: Uint8Array[] = [];
  #bytes = 0;
  #ended: { readonly error: unknown } | undefined;
  #changed: PromiseWithResolvers<void> = Promise.withResolvers<void>();

  /** Made by `ControlClient.follow()`, which calls `push` and `end`. */
  constructor(ready: Promise<void>, flow: Flow) {
    this.ready = ready;
    this.#flow = flow;
    ready.catch((error: unknown) => this.end(error));
  }

  push(line: Uint8Array): void {
    if (this.#ended !== undefined) return;
    this.#lines.push(line);
    this.#bytes += line.length + LINE_OVERHEAD_BYTES;
    if (this.#bytes > MAX_FOLLOWER_BYTES) this.#flow.pause();
    this.#changed.resolve();
  }

  /** The first call decides; lines that have arrived are still handed out. */
  end(error?: unknown): void {
    this.#ended ??= { error };
    this.#changed.resolve();
  }

  /** All lines that have arrived since the last batch, at least one. */
  async *batches(): AsyncGenerator<readonly Uint8Array[], void, void> {
    try {
      for (;;) {
        await this.#changed.promise;
        if (this.#lines.length > 0) {
          const batch = this.#lines;
          this.#lines = [];
          if (this.#bytes > MAX_FOLLOWER_BYTES) this.#flow.resume();
          this.#bytes = 0;
          if (this.#ended === undefined) this.#changed = Promise.withResolvers<void>();
          yield batch;
        } else if (this.#ended?.error !== undefined) throw this.#ended.error;
        else return;
      }
    } finally {
      this.#flow.close();
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, void> {
    for await (const batch of this.batches()) yield* batch;
  }
}
