// R10, R14: exits are noticed at once, and many that crash again and again hold up nobody.

import { readFileSync } from "node:fs";

import type { EventInfo, LineInfo } from "../../src/protocol/info.ts";
import { type Daemon, withDaemon } from "../support/daemon.ts";
import { until } from "../support/wire.ts";
import { demand, milliseconds, type Outcome, percentile } from "./outcome.ts";

/** The items of a stream that ends by itself. */
async function items<T>(daemon: Daemon, request: object): Promise<T[]> {
  const control = await daemon.control();
  await control.ok(request);
  const lines = (await control.wire.rest()).toString().split("\n");
  return lines.slice(0, -1).map((line) => JSON.parse(line));
}

/** Instances end at random times, and say so as the last thing that they do. */
export async function exits(size: { instances: number; ms: number }): Promise<Outcome> {
  let late: number[] = [];
  await withDaemon(async (daemon) => {
    // By then it is `date` that runs: it prints, and has ended.
    const path = daemon.script('#!/bin/sh\nsleep "$1"\nexec date +%s%3N\n');
    const control = await daemon.control();
    for (let i = 0; i < size.instances; i++) {
      const id = crypto.randomUUID();
      const args = [(0.5 + (Math.random() * size.ms) / 1_000).toFixed(3)];
      await control.ok({ Add: { id, path, args } });
      await control.ok({ Start: id });
    }
    await until(
      "all have ended",
      async () => {
        const runtimes = Object.values((await daemon.info()).runtimes);
        return runtimes.every(({ state }) => state === "stopped");
      },
      size.ms + 60_000,
    );
    await until("no zombie is left", () => daemon.zombies().length === 0, 1_000);
    const told = new Map<string, number>();
    for (const { id, line } of await items<LineInfo>(daemon, { Output: {} })) {
      told.set(id, Number(line));
    }
    const ends = (await items<EventInfo>(daemon, { Events: {} })).filter(
      ({ kind }) => kind === "exited",
    );
    demand(ends.length === size.instances, "Every exit is told", ends.length);
    demand(
      ends.every(({ detail }) => detail["code"] === 0),
      "Each with its code",
    );
    late = ends.map(({ id, time }) => time - (told.get(id as string) ?? Number.NaN));
  });
  return {
    work: `${size.instances} exits within ${size.ms} ms`,
    figures: [milliseconds("noticed after", Math.max(...late), 50, 10_000)],
  };
}

/** Processor time of a process and of its threads, in ms. */
function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const words = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(words[11]) + Number(words[12])) * 10;
}

/** Programs that fail at once, again and again, as often as their policy lets them. */
export async function crashLoops(size: { instances: number; ms: number }): Promise<Outcome> {
  const answers: number[] = [];
  let [cpu, grown, restarts] = [0, 0, 0];
  await withDaemon(async (daemon) => {
    const control = await daemon.control();
    const ids = Array.from({ length: size.instances }, () => crypto.randomUUID());
    for (const id of ids) {
      await control.ok({ Add: { id, path: "/bin/false", restart: "always" } });
    }
    const before = daemon.memory();
    for (const id of ids) await control.ok({ Start: id });
    const [begin, used] = [performance.now(), cpuMs(daemon.pid)];
    while (performance.now() - begin < size.ms) {
      const asked = performance.now();
      await daemon.ok("Version");
      answers.push(performance.now() - asked);
      await Bun.sleep(10);
    }
    cpu = (cpuMs(daemon.pid) - used) / (performance.now() - begin);
    grown = (daemon.memory() - before) / 2 ** 20;
    const runtimes = Object.values((await daemon.info()).runtimes);
    restarts = runtimes.reduce((sum, runtime) => sum + runtime.restarts, 0);
    demand(restarts > 0, "They are started again");
  });
  return {
    work: `${size.instances} that crash for ${size.ms} ms, ${restarts} restarts`,
    figures: [
      { name: "cores", value: cpu, unit: "", is: "at most", promised: 0.25, sane: 1.5 },
      milliseconds("answer p99", percentile(answers, 0.99), 100, 5_000),
      { name: "memory +", value: grown, unit: "MiB", is: "at most", promised: 20, sane: 100 },
    ],
  };
}
