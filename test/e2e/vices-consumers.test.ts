// R19 and R20: an instance that does not read as it should costs itself messages, and nobody else.

import { describe, expect, setDefaultTimeout, test } from "bun:test";

import {
  badConsumer,
  CONSUMER_VICES,
  type ConsumerVice,
  removals,
  restarts,
} from "../experiments/consumers.ts";
import { misses } from "../experiments/outcome.ts";

setDefaultTimeout(60_000);

describe("A consumer that is", () => {
  test.each(Object.keys(CONSUMER_VICES) as ConsumerVice[])(
    "%s changes nothing for the others, and all of its messages are accounted for (P-36, P-37)",
    async (vice) => {
      const outcome = await badConsumer(vice, { consumers: 2, rounds: 5, ms: 80 });
      expect(misses(outcome, "sane")).toEqual([]);
    },
  );

  test("restarted again and again never sees its predecessor's queue (P-35, P-39)", async () => {
    const outcome = await restarts({ messages: 50_000, restarts: 20 });
    expect(misses(outcome, "sane")).toEqual([]);
  });

  test("removed while messages flow takes its links along, and nothing else (P-40)", async () => {
    expect(misses(await removals(5), "sane")).toEqual([]);
  });
});
