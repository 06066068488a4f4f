// The items of a stream between the connection they arrive on and whoever takes them.
//
// Pure: owns lines that nobody has taken yet and asks for a pause of the connection when they become
// too many. `client.ts` feeds it.

import type { Address } from "../address.ts";
import { MAX_FOLLOWER_BYTES } from "../limits.ts";
import { incomprehensible } from "./unanswered.ts";

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

/**
 * A stream whose items are JSON. While nobody takes them, the connection is not read; leaving the
 * loop ends it. Items of a form that nobody knows end the loop with an error.
 */
export class Items<T> implements AsyncIterable<T> {
  /** Settles when the daemon has accepted or refused. */
  readonly ready: Promise<void>;
  readonly #follow: Follow;
  readonly #isItem: (value: unknown) => value is T;
  readonly #address: Address;

  constructor(follow: Follow, isItem: (value: unknown) => value is T, address: Address) {
    this.ready = follow.ready;
    this.#follow = follow;
    this.#isItem = isItem;
    this.#address = address;
  }

  /** All items that have arrived since the last batch, at least one. */
  async *batches(): AsyncGenerator<readonly T[], void, void> {
    for await (const batch of this.#follow.batches()) yield batch.map((body) => this.#decode(body));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, void> {
    for await (const batch of this.batches()) yield* batch;
  }

  #decode(body: Uint8Array): T {
    try {
      const value: unknown = JSON.parse(Buffer.from(body).toString());
      if (this.#isItem(value)) return value;
    } catch (error) {
      throw incomprehensible(this.#address, error);
    }
    throw incomprehensible(this.#address, new Error("an item of a stream has an unknown form"));
  }
}
