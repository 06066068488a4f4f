// R25 to R27 at a small size: those who say nothing, or nonsense, keep nobody from being served.

import { expect, setDefaultTimeout, test } from "bun:test";

import { crowd } from "../experiments/crowds.ts";
import { garbage } from "../experiments/garbage.ts";
import { misses } from "../experiments/outcome.ts";

setDefaultTimeout(60_000);

test("Clients that say nothing, or next to nothing, make room for one that asks (R25)", async () => {
  expect(misses(await crowd({ silent: 300, slow: 100, ms: 1_500 }), "sane")).toEqual([]);
});

test("Few file descriptors are kept for what runs, and nobody spins (R26)", async () => {
  const outcome = await crowd({ silent: 300, slow: 0, ms: 1_500, descriptors: 128 });
  expect(misses(outcome, "sane")).toEqual([]);
});

test("Nonsense at the sockets of a daemon changes nothing for others (R27)", async () => {
  expect(misses(await garbage({ inputs: 1_500, seed: 1 }), "sane")).toEqual([]);
});
