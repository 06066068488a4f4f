// R25, R26 at a small size: many clients that say nothing keep nobody from being served.

import { expect, setDefaultTimeout, test } from "bun:test";

import { crowd } from "../experiments/crowds.ts";
import { misses } from "../experiments/outcome.ts";

setDefaultTimeout(60_000);

test("Clients that say nothing, or next to nothing, make room for one that asks (R25)", async () => {
  expect(misses(await crowd({ silent: 300, slow: 100, ms: 1_500 }), "sane")).toEqual([]);
});

test("Few file descriptors are kept for what runs, and nobody spins (R26)", async () => {
  const outcome = await crowd({ silent: 300, slow: 0, ms: 1_500, descriptors: 128 });
  expect(misses(outcome, "sane")).toEqual([]);
});
