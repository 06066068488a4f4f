// Stages of starts: registered instances that are started, against a bare loop of `Bun.spawn`.
//
// Both start the same program with the same environment; the time runs from the first request to
// the last response, or from the order to the last pid. Afterwards every process is looked at: it
// must be there, once, with the id that it was given.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";

import { newInstanceId } from "../src/model.ts";
import { DaemonProcess } from "./daemon.ts";
import type { SpawnPlan } from "./plan.ts";
import type { Helper } from "./side.ts";
import type { Place, Round, Stage } from "./stage.ts";

const SPAWNER = join(import.meta.dir, "spawner.ts");
const ROUND_MS = 30_000;

/** A program that does nothing until it is killed, at the cost of a single `exec`. */
function writeIdler(folder: string): string {
  const path = join(folder, "idler");
  writeFileSync(path, `#!${Bun.which("tail")} -fn0\n`, { mode: 0o700 });
  return path;
}

/** Registered instances, started by pipelined requests over one control connection. */
export class InstanceStarts implements Stage {
  readonly #daemon: DaemonProcess;
  readonly #ids: readonly string[];

  private constructor(daemon: DaemonProcess, ids: readonly string[]) {
    this.#daemon = daemon;
    this.#ids = ids;
  }

  static async open({ folder }: Place, count: number): Promise<InstanceStarts> {
    mkdirSync(folder);
    const path = writeIdler(folder);
    const ids = Array.from({ length: count }, () => newInstanceId());
    const daemon = await DaemonProcess.start(folder);
    await daemon.requestAll(ids.map((id) => ({ kind: "Add", id, path, settings: {} })));
    return new InstanceStarts(daemon, ids);
  }

  async run(): Promise<Round> {
    const startedAt = performance.now();
    await this.#daemon.requestAll(
      this.#ids.map((id) => ({ kind: "Start", id, priority: undefined })),
    );
    const elapsedMs = performance.now() - startedAt;
    const { runtimes } = await this.#daemon.info();
    const pids = this.#ids.map((id) => runtimes[id]?.pid ?? 0);
    const round = await look(pids, this.#ids, elapsedMs);
    await this.#daemon.requestAll(this.#ids.map((id) => ({ kind: "Stop", id })));
    return round;
  }

  async audit(): Promise<number> {
    return 0;
  }

  async close(): Promise<void> {
    await this.#daemon.stop();
  }
}

/** A bare loop of `Bun.spawn` in a process of its own. */
export class BareStarts implements Stage {
  readonly #process: Bun.Subprocess;
  readonly #helper: Helper;
  readonly #ids: readonly string[];

  private constructor(process: Bun.Subprocess, helper: Helper, ids: readonly string[]) {
    this.#process = process;
    this.#helper = helper;
    this.#ids = ids;
  }

  static async open({ folder, side }: Place, count: number): Promise<BareStarts> {
    mkdirSync(folder);
    const path = writeIdler(folder);
    const name = join(folder, "spawner");
    const ids = Array.from({ length: count }, () => newInstanceId());
    const PATH = process.env["PATH"] ?? "/usr/bin:/bin";
    const programs = ids.map((id) => ({
      path,
      env: {
        PATH,
        XDG_RUNTIME_DIR: folder,
        VEECLE_IPC_SOCKET: join(folder, `${id}.socket`),
        VEECLE_RUNTIME_ID: id,
      },
    }));
    const plan: SpawnPlan = { name, side: side.path, programs };
    writeFileSync(`${name}.json`, JSON.stringify(plan));
    const child = Bun.spawn({
      cmd: [process.execPath, SPAWNER, `${name}.json`],
      stdio: ["ignore", "ignore", "inherit"],
    });
    return new BareStarts(child, await side.helper(name), ids);
  }

  async run(): Promise<Round> {
    const startedAt = performance.now();
    const { pids = [] } = await this.#helper.ask({ kind: "spawn" }, ROUND_MS);
    const elapsedMs = performance.now() - startedAt;
    const round = await look(pids, this.#ids, elapsedMs);
    await this.#helper.ask({ kind: "kill" }, ROUND_MS);
    return round;
  }

  async audit(): Promise<number> {
    return 0;
  }

  async close(): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#process.exited;
  }
}

/** Finds every id in the environment of its process. @throws if one is not there */
async function look(
  pids: readonly number[],
  ids: readonly string[],
  elapsedMs: number,
): Promise<Round> {
  let crc = 0;
  for (const [i, id] of ids.entries()) {
    const environment = await environmentOf(pids[i] ?? 0);
    if (!environment.includes(`VEECLE_RUNTIME_ID=${id}`)) {
      throw new Error(`Process ${pids[i]} does not run instance ${id}`);
    }
    crc = crc32(String(i), crc);
  }
  const count = new Set(pids).size;
  if (count !== ids.length) throw new Error(`${ids.length} starts led to ${count} processes`);
  return { elapsedMs, count, bytes: 0, crc, p50: 0, p99: 0 };
}

/** For a moment within `exec`, after `spawn` has returned, a process shows no environment. */
async function environmentOf(pid: number): Promise<string[]> {
  for (let looks = 0; ; looks++, await Bun.sleep(1)) {
    const text = readFileSync(`/proc/${pid}/environ`, "latin1");
    if (text !== "" || looks === 1000) return text.split("\0");
  }
}
