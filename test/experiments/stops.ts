// R7, R11, R12, R13: what is stopped is gone, in time, whatever it does, and nobody else waits for it.

import { readdirSync } from "node:fs";
import { join } from "node:path";

import { readProcess } from "../../src/host/processes.ts";
import { Store } from "../../src/store.ts";
import { type Daemon, withDaemon } from "../support/daemon.ts";
import { type Control, until } from "../support/wire.ts";
import { demand, milliseconds, type Outcome, percentile } from "./outcome.ts";

/** What a test is given on a machine that does other things. */
const SANE_MS = 20_000;

/** Starts a program and returns the first number that it prints behind "ready". */
export async function startReady(daemon: Daemon, path: string, settings: object): Promise<Ready> {
  const id = crypto.randomUUID();
  await daemon.ok({ Add: { id, path, ...settings } });
  const follower = await daemon.control();
  await follower.ok({ Stdout: id });
  await daemon.start(id);
  const [, pid] = (await follower.item()).split(" ");
  follower.wire.close();
  return { id, pid: Number(pid) };
}

export interface Ready {
  readonly id: string;
  readonly pid: number;
}

/** Many instances that run, some of which do not listen to their stop signal. */
async function startMany(
  daemon: Daemon,
  size: { instances: number; stubborn: number; graceMs: number },
): Promise<string[]> {
  const obedient = daemon.script("#!/bin/sh\nexec sleep 1000\n");
  const stubborn = daemon.program("stubborn.sh");
  const started = Array.from({ length: size.instances }, async (_, i) => {
    const settings = { stop_grace_ms: size.graceMs };
    if (i < size.stubborn) return (await startReady(daemon, stubborn, settings)).id;
    const id = crypto.randomUUID();
    await daemon.ok({ Add: { id, path: obedient, ...settings } });
    await daemon.start(id);
    return id;
  });
  return Promise.all(started);
}

/** SIGTERM to a daemon ends everything within the grace and a second, and its state is whole. */
export async function daemonEnds(size: {
  instances: number;
  stubborn: number;
  graceMs: number;
  rounds: number;
}): Promise<Outcome> {
  let slowest = 0;
  for (let round = 0; round < size.rounds; round++) {
    await withDaemon(async (daemon) => {
      const ids = await startMany(daemon, size);
      const begin = performance.now();
      daemon.signal("SIGTERM");
      const code = await daemon.exit(size.graceMs + SANE_MS);
      slowest = Math.max(slowest, performance.now() - begin - size.graceMs);
      demand(code === 0, "It ends in order", code);
      const left = daemon.processes();
      demand(left.length === 0, "Nothing is left", left);
      const files = readdirSync(daemon.stateFolder, { recursive: true, encoding: "utf8" });
      const file = files.find((path) => path.endsWith("state.db")) as string;
      const store = Store.open(join(daemon.stateFolder, file));
      const { instances } = store.load();
      store.close();
      const wanted = instances.filter((instance) => instance.wanted).length;
      demand(wanted === ids.length, "All of them are meant to run again", wanted);
    });
  }
  return {
    work: `${size.rounds} × SIGTERM with ${size.instances} instances, ${size.stubborn} stubborn`,
    figures: [milliseconds("over the grace", slowest, 1_000, SANE_MS)],
  };
}

/** Ways in which `evader.sh` is hard to end. */
export const EVASIONS = ["stubborn", "stopped", "session", "clean", "orphan", "tangled"] as const;

/** A stop is answered within the grace and a little, and then nothing is left. */
export async function evasion(
  kind: (typeof EVASIONS)[number],
  size: { count: number; graceMs: number },
): Promise<Outcome> {
  let slowest = 0;
  await withDaemon(async (daemon) => {
    const program = daemon.program("evader.sh", kind);
    for (let i = 0; i < size.count; i++) {
      const { id, pid } = await startReady(daemon, program, { stop_grace_ms: size.graceMs });
      const begin = performance.now();
      await daemon.ok({ Stop: id }, size.graceMs + SANE_MS);
      slowest = Math.max(slowest, performance.now() - begin - size.graceMs);
      const state = readProcess(pid)?.state ?? "Z";
      demand(state === "Z", "A stop that succeeded leaves nothing", { pid, state });
      await daemon.ok({ Remove: id });
    }
  });
  return {
    work: `${size.count} × ${kind}`,
    figures: [milliseconds("over the grace", slowest, 100, SANE_MS)],
  };
}

/** A tree that forks while it is killed is gone soon. */
export async function bomb(size: { processes: number; escape: boolean }): Promise<Outcome> {
  let ms = 0;
  let found = 0;
  await withDaemon(async (daemon) => {
    const counter = daemon.script("");
    const wrapper = size.escape ? "setsid" : "";
    const id = crypto.randomUUID();
    const path = daemon.program("bomber.sh", size.processes, counter, wrapper);
    await daemon.ok({ Add: { id, path, stop_signal: "SIGKILL" } });
    await daemon.start(id);
    await until("it is about to be complete", () => {
      found = daemon.processes().length;
      return found > size.processes * 0.8;
    });
    const begin = performance.now();
    await daemon.ok({ Stop: id }, SANE_MS);
    ms = performance.now() - begin;
    const left = daemon.processes();
    demand(left.length === 0, "Nothing is left", left);
  });
  return {
    work: `a forking tree of ${found} and more${size.escape ? ", each with its own session" : ""}`,
    figures: [milliseconds("gone after", ms, 2_000, SANE_MS)],
  };
}

/** Stubborn instances are stopped side by side, and requests are answered meanwhile. */
export async function manyStops(size: { instances: number; graceMs: number }): Promise<Outcome> {
  let ms = 0;
  const answers: number[] = [];
  await withDaemon(async (daemon) => {
    const ids = await startMany(daemon, { ...size, stubborn: size.instances });
    const controls: Control[] = [];
    for (const _ of ids) controls.push(await daemon.control("native"));
    const begin = performance.now();
    let isOver = false;
    const stops = Promise.all(
      ids.map((id, i) => (controls[i] as Control).ok({ Stop: id }, size.graceMs + SANE_MS)),
    ).finally(() => (isOver = true));
    while (!isOver) {
      const asked = performance.now();
      await daemon.info();
      answers.push(performance.now() - asked);
      await Bun.sleep(5);
    }
    await stops;
    ms = performance.now() - begin - size.graceMs;
    const left = daemon.processes();
    demand(left.length === 0, "Nothing is left", left);
  });
  return {
    work: `${size.instances} stubborn instances stopped at once, ${answers.length} requests meanwhile`,
    figures: [
      milliseconds("over the grace", ms, 1_000, SANE_MS),
      milliseconds("Info p99", percentile(answers, 0.99), 50, 5_000),
    ],
  };
}
