// R21: messages that go round in circles stop nobody, fill nothing, and are not lost.

import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { circle, orchestrators } from "../experiments/loops.ts";
import { misses } from "../experiments/outcome.ts";

setDefaultTimeout(60_000);

const LOOPS: readonly [what: string, instances: number][] = [
  ["an instance that is linked to itself", 1],
  ["two that echo", 2],
  ["a ring of three", 3],
];

describe.each(LOOPS)("10,000 messages in %s", (_what, instances) => {
  test("go round and round, and are all there in the end", async () => {
    const outcome = await circle({ instances, messages: 10_000, ms: 200 });
    expect(misses(outcome, "sane")).toEqual([]);
  });

  test("do so along links that block at 10 messages (P-46)", async () => {
    const settings = { on_full: "block", queue: 10 };
    const outcome = await circle({ instances, messages: 10_000, ms: 200, settings });
    expect(misses(outcome, "sane")).toEqual([]);
  });
});

test("Messages that two orchestrators send round and round fill no memory and block nobody", async () => {
  expect(misses(await orchestrators({ messages: 100, ms: 500 }), "sane")).toEqual([]);
});
