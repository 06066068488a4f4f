// A small seeded generator, and a way to run a property under many seeds.
//
// A failing property names its seed; `TEST_SEED=<seed> bun test …` runs that one alone.
// `TEST_RUNS=<factor>` multiplies the number of seeds, for a long search.

import { test } from "bun:test";

/** Numbers that look random and are the same for the same seed (sfc32). */
export class Random {
  readonly seed: number;
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(seed: number) {
    this.seed = seed;
    this.#a = 0x9e3779b9;
    this.#b = seed | 0;
    this.#c = Math.floor(seed / 2 ** 32) | 0;
    for (let i = 0; i < 15; i++) this.next();
  }

  /** 0 to 2^32 - 1. */
  next(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** A whole number from `min` to `max`, both included. */
  int(min: number, max: number): number {
    return min + Math.floor((this.next() / 2 ** 32) * (max - min + 1));
  }

  /** Like `int`, but small numbers are as likely as large ones. */
  size(min: number, max: number): number {
    const scale = Math.log(max - min + 1);
    return min + Math.floor(Math.exp((this.next() / 2 ** 32) * scale)) - 1;
  }

  chance(probability: number): boolean {
    return this.next() / 2 ** 32 < probability;
  }

  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new Error("nothing to pick from");
    return items[this.int(0, items.length - 1)] as T;
  }

  bytes(length: number): Buffer {
    const bytes = Buffer.alloc(length);
    for (let i = 0; i < length; i++) bytes[i] = this.next();
    return bytes;
  }

  /** `length` pieces, joined. */
  text(length: number, pieces: readonly string[]): string {
    let text = "";
    for (let i = 0; i < length; i++) text += this.pick(pieces);
    return text;
  }

  /** Cuts a stream at random places, sometimes byte by byte, sometimes not at all. */
  cut(stream: Buffer): Buffer[] {
    if (this.chance(0.1)) return [Buffer.from(stream)];
    const longest = this.chance(0.15) ? 1 : this.size(1, Math.max(stream.length, 1));
    return cutBy(stream, () => this.int(1, longest));
  }
}

/** Pieces of the sizes that `next` tells. Each is a copy, as if it came from a socket. */
export function cutBy(stream: Buffer, next: () => number): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0; at < stream.length;) {
    const end = Math.min(at + next(), stream.length);
    chunks.push(Buffer.from(stream.subarray(at, end)));
    at = end;
  }
  return chunks;
}

/** A test that holds for `runs` seeds. */
export function property(
  name: string,
  runs: number,
  body: (random: Random) => void | Promise<void>,
): void {
  test(name, async () => {
    const only = process.env["TEST_SEED"];
    const factor = Number(process.env["TEST_RUNS"] ?? 1);
    const [first, count] = only === undefined ? [1, runs * factor] : [Number(only), 1];
    for (let seed = first; seed < first + count; seed++) {
      try {
        await body(new Random(seed));
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        throw new Error(`with TEST_SEED=${seed}: ${message}`, { cause: error });
      }
    }
  });
}
