// Load generators on the way to running: their plans, their scripts, and the requests that make
// instances of them.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { newInstanceId } from "../src/model.ts";
import type { Request } from "../src/protocol.ts";
import type { DaemonProcess } from "./daemon.ts";
import type { LoadPlan } from "./plan.ts";

const LOAD = join(import.meta.dir, "load.ts");
const CONNECT_MS = 20_000;
export const PATH: string = process.env["PATH"] ?? "/usr/bin:/bin";

/** The words before a command that keep it, and what it starts, on one core; none if that cannot be done. */
export const ONE_CORE: readonly string[] = (() => {
  const taskset = Bun.which("taskset");
  if (taskset === null) return [];
  const core = /^Cpus_allowed_list:\s*([0-9]+)/m.exec(readFileSync("/proc/self/status", "utf8"));
  return core?.[1] === undefined ? [] : [taskset, "-c", core[1]];
})();

/** A load generator that is to run. */
export interface Load<Plan extends LoadPlan = LoadPlan> {
  readonly plan: Plan;
  /** As an instance. */
  readonly id: string;
  /** The script that runs it: an orchestrator starts a path, without arguments. */
  readonly script: string;
}

/** Writes a plan and its script; the plan's name is the path of both, without what follows the dot. */
export function writeLoad<Plan extends LoadPlan>(plan: Plan): Load<Plan> {
  const file = `${plan.name}.json`;
  const script = `${plan.name}.sh`;
  writeFileSync(file, JSON.stringify(plan));
  const command = [process.execPath, LOAD, file].map((word) => `'${word}'`).join(" ");
  writeFileSync(script, `#!/bin/sh\nexec ${command}\n`, { mode: 0o700 });
  return { plan, id: newInstanceId(), script };
}

/** A process beside the orchestrator, below the words of `prefix`. */
export function spawn(
  cmd: readonly string[],
  env: Record<string, string> = {},
  prefix: readonly string[] = [],
): Bun.Subprocess {
  return Bun.spawn({
    cmd: [...prefix, ...cmd],
    env: { PATH, ...env },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "inherit",
  });
}

export async function killAll(processes: readonly Bun.Subprocess[]): Promise<void> {
  for (const child of processes) child.kill("SIGKILL");
  await Promise.all(processes.map(({ exited }) => exited));
}

/** Runs loads as instances, linked by `links`, and waits until each that greets has told its dialect. */
export async function runInstances(
  daemon: DaemonProcess,
  loads: readonly Load[],
  links: readonly Request[],
): Promise<void> {
  const requests: Request[] = loads.map(({ id, script }) => add(id, script));
  requests.push(...links);
  for (const { id } of loads) requests.push({ kind: "Start", id, priority: undefined });
  await daemon.requestAll(requests);
  const ids = loads.filter(({ plan }) => plan.greets !== undefined).map(({ id }) => id);
  for (const deadline = performance.now() + CONNECT_MS; ; await Bun.sleep(10)) {
    const { runtimes } = await daemon.info();
    const missing = ids.filter((id) => (runtimes[id]?.dialect ?? null) === null);
    if (missing.length === 0) return;
    if (performance.now() > deadline) {
      throw new Error(`Of ${ids.length} instances ${missing.length} have not connected`);
    }
  }
}

export function add(id: string, path: string): Request {
  return { kind: "Add", id, path, settings: {} };
}

export function link(from: string | undefined, type: string, to: string): Request {
  return { kind: "Link", link: { from, typeName: type, to: { kind: "instance", id: to } } };
}
