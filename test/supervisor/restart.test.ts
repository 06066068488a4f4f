import { describe, expect, test } from "bun:test";

import type { Exit } from "../../src/model.ts";
import { Restarts, type Verdict } from "../../src/supervisor/restart.ts";
import type { RestartPolicy } from "../../src/settings.ts";

const CRASH: Exit = { code: undefined, signal: "SIGSEGV" };
const FAILURE: Exit = { code: 1, signal: undefined };
const SUCCESS: Exit = { code: 0, signal: undefined };
/** Chance that leaves every pause as it is planned. */
const EVEN = (): number => 0.5;

describe("Restarts.judge() by policy", () => {
  const cases: [policy: RestartPolicy, exit: Exit, kind: Verdict["kind"]][] = [
    ["no", SUCCESS, "ended"],
    ["no", FAILURE, "ended"],
    ["no", CRASH, "ended"],
    ["on-failure", SUCCESS, "ended"],
    ["on-failure", FAILURE, "crashed"],
    ["on-failure", CRASH, "crashed"],
    ["always", SUCCESS, "crashed"],
    ["always", FAILURE, "crashed"],
    ["always", CRASH, "crashed"],
  ];
  test.each(cases)("%s, after %o: %s", (policy, exit, kind) => {
    expect(new Restarts(EVEN).judge(policy, 100, exit, 5, 5).kind).toBe(kind);
  });
});

/** Runs that last `ranMs` each, until one is not started again; returns the pauses, and when that was. */
function crashes(random: () => number, firstMs: number, ranMs: number, limit: number = 100) {
  const restarts = new Restarts(random);
  const pauses: number[] = [];
  let nowMs = 0;
  while (pauses.length < limit) {
    nowMs += ranMs;
    const verdict = restarts.judge("always", firstMs, CRASH, ranMs, nowMs);
    if (verdict.kind !== "crashed") return { pauses, failedAt: nowMs };
    pauses.push(Math.round(verdict.delayMs));
    nowMs += verdict.delayMs;
  }
  return { pauses, failedAt: undefined };
}

describe("Restarts.judge() over time", () => {
  test("doubles the pause up to 30 s while runs are short", () => {
    // Runs of five seconds: too short to be well, too long to fail.
    const { pauses } = crashes(EVEN, 100, 5_000, 11);
    expect(pauses).toEqual([
      100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000,
    ]);
  });

  test("begins anew after a run of ten seconds", () => {
    const restarts = new Restarts(EVEN);
    const pauses = [50, 50, 10_000, 50].map((ranMs, i) => {
      const verdict = restarts.judge("always", 100, CRASH, ranMs, i * 20_000);
      return verdict.kind === "crashed" ? verdict.delayMs : verdict.kind;
    });
    expect(pauses).toEqual([100, 200, 100, 200]);
  });

  test("gives up after ten starts in a minute, whatever chance does to the pauses", () => {
    for (const random of [EVEN, () => 0, () => 0.999]) {
      const { pauses, failedAt } = crashes(random, 100, 0);
      expect(pauses).toHaveLength(9);
      expect(failedAt).toBeWithin(51_000 * 0.74, 52_000 * 1.26);
    }
  });

  test("gives up at once without a pause, and goes on once somebody starts it", () => {
    const restarts = new Restarts(EVEN);
    const judge = (): string => restarts.judge("always", 0, CRASH, 1, 1).kind;
    expect(Array.from({ length: 10 }, judge).join(" ")).toBe(`${"crashed ".repeat(9)}exhausted`);
    restarts.reset();
    expect(judge()).toBe("crashed");
  });

  test("varies each pause by a quarter at most, evenly", () => {
    let i = 0;
    const pauses = Array.from({ length: 1_001 }, () => {
      const verdict = new Restarts(() => i++ / 1_001).judge("always", 100, CRASH, 1, 1);
      return verdict.kind === "crashed" ? verdict.delayMs : Number.NaN;
    });
    expect(Math.min(...pauses)).toBe(75);
    expect(Math.max(...pauses)).toBeWithin(124.9, 125);
    expect(pauses.reduce((sum, pause) => sum + pause, 0) / pauses.length).toBeWithin(99.9, 100.1);
  });
});
