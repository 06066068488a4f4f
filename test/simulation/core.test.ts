// The whole core, in a system where everything fails that may fail.

import { property } from "../support/random.ts";
import { CoreWorld } from "./happenings.ts";

const OPERATIONS = 35;

property("A core keeps its promises, whatever its system does", 10_000, async (random) => {
  const world = new CoreWorld(random);
  await world.open();
  for (let i = 0; i < OPERATIONS; i++) await world.step();
  await world.finish();
});
