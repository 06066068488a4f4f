// Many instances that read nothing, at a small size, and a daemon that is given too little memory.

import { expect, setDefaultTimeout, test } from "bun:test";

import { mass, scarce } from "../experiments/masses.ts";
import { misses } from "../experiments/outcome.ts";

setDefaultTimeout(120_000);

test("More waits for everybody than there is room for, and others notice nothing (R1, R19)", async () => {
  const size = { instances: 103, running: 10, messages: 25_000, ms: 400, rounds: 1 };
  expect(misses(await mass(size), "sane")).toEqual([]);
});

test("A daemon without memory drops what waits, and goes on", async () => {
  expect(misses(await scarce({ instances: 200, messages: 200_000 }), "sane")).toEqual([]);
});
