import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { bootId, MARK_VARIABLE } from "../../src/host/processes.ts";
import { type FormerRun, recover } from "../../src/supervisor/recovery.ts";
import { FakeHost, type FakeProcess } from "../support/host.ts";
import { isAlive, Nursery } from "../support/processes.ts";

setDefaultTimeout(30_000);

const BOOT = "6a3c";

describe("recover(), in memory", () => {
  /** Something that a former daemon started, and what it has written down of it. */
  function plant(host: FakeHost, mark: string): { process: FakeProcess; run: FormerRun } {
    const { pid, startTicks } = host.spawn({
      path: "/opt/ping",
      env: { [MARK_VARIABLE]: mark },
      onExit() {},
      onOutput() {},
      onOutputEnd() {},
    });
    return {
      process: host.processes.at(-1) as FakeProcess,
      run: { pid, startTicks, bootId: BOOT, mark },
    };
  }

  async function recovered(
    host: FakeHost,
    runs: FormerRun[],
    runId?: string,
    boot: string | undefined = BOOT,
  ): Promise<number[]> {
    const left = recover(host, { runId, runs, bootId: boot }, 1_000);
    await host.run(1_100);
    return (await left).map(({ pid }) => pid);
  }

  test("ends what is recorded, what carries the mark, and what comes of both", async () => {
    const host = new FakeHost();
    const { process, run } = plant(host, "old.1");
    const child = process.fork({ session: true, mark: null });
    const unrecorded = plant(host, "old.2").process;
    const orphan = plant(host, "old.3").process.fork({ session: true });
    host.processes.at(-1)?.exit();
    expect(await recovered(host, [run], "old")).toEqual([]);
    expect([process, child, unrecorded, orphan].map(({ isAlive: lives }) => lives)).toEqual(
      Array(4).fill(false),
    );
  });

  test("knows by a mark in it that a session without its leader is still the recorded one", async () => {
    const host = new FakeHost();
    const { process, run } = plant(host, "old.1");
    const [marked, clean] = [process.fork(), process.fork({ mark: null })];
    process.exit();
    host.turn(0);
    expect(await recovered(host, [run])).toEqual([]);
    expect([marked.isAlive, clean.isAlive]).toEqual([false, false]);
  });

  test.each([
    ["began at another time", (run: FormerRun) => ({ ...run, startTicks: 1 })],
    ["began at a time that nobody knows", (run: FormerRun) => ({ ...run, startTicks: undefined })],
    ["belongs to another boot", (run: FormerRun) => ({ ...run, bootId: "77aa" })],
    ["belongs to a boot that nobody knows", (run: FormerRun) => ({ ...run, bootId: undefined })],
  ])("R16: leaves alone who has the pid and %s", async (_, change) => {
    const host = new FakeHost();
    const { process, run } = plant(host, "other.1");
    process.fork();
    expect(await recovered(host, [{ ...change(run), mark: "old.1" }], "old")).toEqual([]);
    expect(host.table.flatMap(({ signals }) => signals)).toEqual([]);
  });

  test("R16: leaves alone everybody when the present boot is unknown, or the mark only begins alike", async () => {
    const host = new FakeHost();
    const { run } = plant(host, "other.1");
    plant(host, "older.1");
    const runs = [{ ...run, bootId: undefined, mark: "old.1" }];
    expect(await recover(host, { runId: "old", runs, bootId: undefined }, 1_000)).toEqual([]);
    expect(host.table.flatMap(({ signals }) => signals)).toEqual([]);
  });

  test("leaves alone a session whose number went to strangers who lost their leader", async () => {
    const host = new FakeHost();
    const { process, run } = plant(host, "old.1");
    process.exit();
    host.turn(0);
    const stranger = host.stranger(run.pid);
    const child = stranger.fork();
    stranger.exit();
    expect(await recovered(host, [run], "old")).toEqual([]);
    expect(child.signals).toEqual([]);
  });

  test("tells what it could not end", async () => {
    const host = new FakeHost();
    const { process, run } = plant(host, "old.1");
    process.isStuck = true;
    expect(await recovered(host, [run], "old")).toEqual([run.pid]);
  });
});

const [nursery, others] = [new Nursery(), new Nursery()];

test("recover() ends fifty real orphans", async () => {
  const runs = Array.from({ length: 50 }, () => nursery.run("sleep", "1000"));
  const stranger = others.run("sleep", "1000");
  const stored = runs.map(({ pid, startTicks, mark }) => ({
    pid,
    startTicks,
    mark,
    bootId: bootId(),
  }));
  const { host, runId } = nursery;
  const left = await recover(host, { runId, runs: stored.slice(25), bootId: bootId() }, 10_000);
  expect(left).toEqual([]);
  expect(runs.filter(({ pid }) => isAlive(pid))).toEqual([]);
  expect(isAlive(stranger.pid)).toBe(true);
});
