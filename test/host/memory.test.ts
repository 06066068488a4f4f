import { expect, test } from "bun:test";

import { MemoryWatch } from "../../src/host/memory.ts";
import { SAME_KILLS_MS } from "../../src/limits.ts";

test("MemoryWatch.look() tells what has come since the last look, and once more to who asks at once", () => {
  let [nowMs, count]: [number, number | undefined] = [0, 7];
  const watch = new MemoryWatch(
    () => nowMs,
    () => count,
  );
  nowMs = 60_000;
  expect(watch.look()).toBeUndefined();
  [nowMs, count] = [65_000, 9];
  expect(watch.look()).toEqual({ count: 2, withinMs: 5_000 });
  [nowMs, count] = [65_000 + SAME_KILLS_MS - 1, 10];
  expect(watch.look()).toEqual({ count: 3, withinMs: 5_000 + SAME_KILLS_MS - 1 });
  nowMs += SAME_KILLS_MS - 1; // the last of them was found not long ago
  expect(watch.look()).toMatchObject({ count: 3 });
  nowMs += 1;
  expect(watch.look()).toBeUndefined();
  count = undefined; // where nobody can look, nobody is accused
  expect(watch.look()).toBeUndefined();
  count = 12;
  expect(watch.look()).toBeUndefined();
});

test("MemoryWatch.look() reads what this kernel counts", () => {
  const watch = new MemoryWatch(() => 0);
  expect(() => watch.look()).not.toThrow();
});
