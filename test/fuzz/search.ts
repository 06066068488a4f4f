// The search itself: inputs of one seed each, and what becomes of one that breaks a rule.

import { Random } from "../support/random.ts";
import { mutate, shrink } from "./mutate.ts";
import type { Surface } from "./surfaces.ts";

/** An input that broke a rule, as short as it could be made. */
export interface Found {
  readonly seed: number;
  readonly input: Buffer;
  readonly error: unknown;
}

/** The input of a seed. */
export function inputOf({ samples }: Surface, seed: number): Buffer {
  const random = new Random(seed);
  return mutate(random, random.pick(samples), samples);
}

/** What an input of a seed breaks, or undefined. */
export function breaks(surface: Surface, input: Buffer, seed: number): unknown {
  try {
    surface.run(input, new Random(seed));
    return undefined;
  } catch (error) {
    return error ?? new Error("it threw nothing");
  }
}

/** Tries the inputs of so many seeds; ends with the first that breaks a rule. */
export async function search(
  surface: Surface,
  firstSeed: number,
  count: number,
): Promise<Found | undefined> {
  for (let seed = firstSeed; seed < firstSeed + count; seed++) {
    const input = inputOf(surface, seed);
    const error = breaks(surface, input, seed);
    if (error === undefined) continue;
    const fails = (shorter: Buffer): Promise<boolean> =>
      Promise.resolve(breaks(surface, shorter, seed) !== undefined);
    const shortest = await shrink(input, fails);
    return { seed, input: shortest, error: breaks(surface, shortest, seed) };
  }
  return undefined;
}

/** One that was found, as an entry for `test/fuzz/found.ts`. */
export function formatFound(surface: string, { seed, input, error }: Found): string {
  const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return `${surface}, seed ${seed}: ${reason}\n  ["${surface}", ${seed}, "${input.toString("base64")}"],`;
}
