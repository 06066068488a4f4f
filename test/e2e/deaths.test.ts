// R1, R2 and R8 at a small size: what is answered survives a daemon that is killed at any moment.

import { expect, setDefaultTimeout, test } from "bun:test";

import { kills, rivals, successors } from "../experiments/deaths.ts";
import { misses } from "../experiments/outcome.ts";

setDefaultTimeout(120_000);

const SEED = Number(process.env["TEST_SEED"] ?? 1);

test("Nothing that was answered is lost, and nothing else is there (R1, P-49)", async () => {
  expect(misses(await kills({ clients: 8, rounds: 5, seed: SEED }), "sane")).toEqual([]);
});

test("A daemon that was killed serves again soon, with what was meant to run, once (R2)", async () => {
  expect(misses(await successors({ instances: 50, rounds: 1 }), "sane")).toEqual([]);
});

test("Of many daemons that are started at once, one serves (R8)", async () => {
  expect(misses(await rivals(8), "sane")).toEqual([]);
});
