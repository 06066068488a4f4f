// R7, R10 to R14 at a small size: exits are noticed, stops are carried out, and nobody is held up.

import { expect, setDefaultTimeout, test } from "bun:test";

import { crashLoops, exits } from "../experiments/exits.ts";
import { misses } from "../experiments/outcome.ts";
import {
  bomb,
  daemonEnds,
  EVASIONS,
  evasion,
  manyStops,
  startReady,
} from "../experiments/stops.ts";
import { readProcess } from "../../src/host/processes.ts";
import { withDaemon } from "../support/daemon.ts";
import { until } from "../support/wire.ts";

setDefaultTimeout(120_000);

test("A second SIGTERM ends at once what has outlived its parent, too (R7)", () =>
  withDaemon(async (daemon) => {
    const path = daemon.program("evader.sh", "tangled");
    const { id, pid } = await startReady(daemon, path, { stop_grace_ms: 60_000 });
    const main = (await daemon.runtime(id)).pid as number;
    daemon.signal("SIGTERM");
    await until("its parent has ended", () => readProcess(main) === undefined);
    expect(readProcess(pid)?.state ?? "Z").not.toBe("Z");
    daemon.signal("SIGTERM");
    expect(await daemon.process.exited).toBe(143);
    await until("it has ended", () => (readProcess(pid)?.state ?? "Z") === "Z");
  }));

test("SIGTERM ends everything within the grace and a moment, and the state is whole (R7)", async () => {
  const size = { instances: 20, stubborn: 5, graceMs: 300, rounds: 1 };
  expect(misses(await daemonEnds(size), "sane")).toEqual([]);
});

test("Exits at random are noticed at once, with their codes (R10)", async () => {
  expect(misses(await exits({ instances: 30, ms: 500 }), "sane")).toEqual([]);
});

test.each(EVASIONS)("A stop ends one that is %s (R11)", async (kind) => {
  expect(misses(await evasion(kind, { count: 3, graceMs: 100 }), "sane")).toEqual([]);
});

test.each([false, true])(
  "A tree that forks while it is killed is gone (setsid: %p) (R12)",
  async (escape) => {
    expect(misses(await bomb({ processes: 60, escape }), "sane")).toEqual([]);
  },
);

test("Stubborn instances are stopped side by side, and others are answered (R13)", async () => {
  expect(misses(await manyStops({ instances: 20, graceMs: 300 }), "sane")).toEqual([]);
});

test("Crash loops hold up nobody (R14)", async () => {
  expect(misses(await crashLoops({ instances: 50, ms: 2_000 }), "sane")).toEqual([]);
});
