// The supervisor against a model, in a system where everything happens that may happen, in any order.

import { property } from "../support/random.ts";
import { World } from "./world.ts";

const OPERATIONS = 500;

property(
  "A supervisor does what docs/supervision.md says, whatever happens",
  10_000,
  async (random) => {
    const world = new World(random);
    for (let i = 0; i < OPERATIONS; i++) await world.step();
    await world.rest();
  },
);
