// R14 for a whole day: 500 instances in a crash loop, on a clock turned by hand.

import { expect, test } from "bun:test";

import { Random } from "../support/random.ts";
import { CrashWorld, type Habit } from "./crashes.ts";

const HOUR_MS = 3_600_000;
const INSTANCES = 500;

/** Most crash at once and have failed soon, some live for seconds, and a few for long enough. */
function habitOf(i: number): Habit {
  if (i % 100 === 0) return { runMs: [10_000, 20_000], neglectMs: HOUR_MS };
  if (i % 7 === 0) return { runMs: [1_000, 9_000], neglectMs: HOUR_MS };
  return { runMs: [0, 50], neglectMs: HOUR_MS };
}

test("Instances that crash for a day keep their pauses, and leave nothing behind (R14)", async () => {
  const world = new CrashWorld(
    new Random(Number(process.env["TEST_SEED"] ?? 1)),
    Array.from({ length: INSTANCES }, (_, i) => habitOf(i)),
  );
  let first = Number.POSITIVE_INFINITY;
  for (let hour = 0; hour < 24; hour++) {
    await world.run(HOUR_MS);
    // A program that runs, a pause, a sweep: two of them at a time, and one for who starts it again.
    expect(world.timers).toBeLessThanOrEqual(3 * INSTANCES);
    Bun.gc(true);
    const { heapUsed } = process.memoryUsage();
    if (hour === 1) first = heapUsed;
    expect(heapUsed - first).toBeLessThan(2 ** 20);
  }
  expect(world.restarts).toBeGreaterThan(200_000);
  expect(world.failures).toBeGreaterThan(5_000);
  await world.end();
  expect(world.timers).toBe(0);
}, 120_000);
