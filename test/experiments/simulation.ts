// The whole core in simulation, one seed after the other, as long as somebody has time.

import { messageChain } from "../../src/errors.ts";
import { simulateCore } from "../simulation/happenings.ts";
import { Random } from "../support/random.ts";
import type { Outcome } from "./outcome.ts";

/** @throws with the seed that breaks a promise: `TEST_SEED=<seed> bun test test/simulation/core.test.ts` */
export async function simulation(options: { seed: number; ms: number }): Promise<Outcome> {
  const begin = performance.now();
  let seed = options.seed;
  for (; performance.now() - begin < options.ms; seed++) {
    try {
      await simulateCore(new Random(seed));
    } catch (error) {
      throw new Error(`with TEST_SEED=${seed}: ${messageChain(error).join(": ")}`);
    }
  }
  return { work: `${seed - options.seed} seeds from ${options.seed}`, figures: [] };
}
