// R15: the races that have names, each some times.

import { expect, setDefaultTimeout, test } from "bun:test";

import { misses } from "../experiments/outcome.ts";
import { type Race, race, RACES } from "../experiments/races.ts";

setDefaultTimeout(120_000);

test.each(Object.keys(RACES) as Race[])("%s leaves nothing undecided", async (name) => {
  expect(misses(await race(name, 20), "sane")).toEqual([]);
});
