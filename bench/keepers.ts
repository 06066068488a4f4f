// Who keeps processes alive: the orchestrator, and as its baseline a bare program, with one face.
//
// Both run the same program with the same environment, and both are asked over a Unix socket.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { ControlClient } from "../src/client.ts";
import { LineScanner, NEWLINE } from "../src/lines.ts";
import { newInstanceId } from "../src/model.ts";
import type { Request } from "../src/protocol.ts";
import type { InstanceSettings } from "../src/settings.ts";
import { buildDaemon, DaemonProcess } from "./daemon.ts";
import type { KeeperPlan } from "./plan.ts";
import type { Helper } from "./side.ts";
import type { Place } from "./stage.ts";

const BARE = join(import.meta.dir, "bare.ts");
const PATH = process.env["PATH"] ?? "/usr/bin:/bin";
const WAIT_MS = 30_000;
/** Stops are side by side on so many connections: on one, requests are answered one by one. */
const CONNECTIONS = 100;

/** When a process that was killed was known to have ended, and when there was another one. */
export interface Replacement {
  readonly noticedMs: number;
  readonly replacedMs: number;
  readonly pid: number;
}

export interface Keeper {
  /** Of the program that keeps the others. */
  readonly pid: number;
  /** Starts all, and returns their pids. */
  start(): Promise<readonly number[]>;
  /** Ends all: nothing is left of them. */
  stop(): Promise<void>;
  /** Kills one, which is replaced. */
  replace(index: number, pid: number): Promise<Replacement>;
  /** Is killed itself, with all that it keeps; then started again. Returns the time until all run. */
  rebirth(): Promise<number>;
  /** Asks for the state of all, and returns the bytes of the answer and how long it took. */
  ask(): Promise<{ readonly bytes: number; readonly elapsedMs: number }>;
  close(): Promise<void>;
}

/** A program that does nothing until it is ended, at the cost of a single `exec`. */
export function writeIdler(folder: string): string {
  const path = join(folder, "idler");
  writeFileSync(path, `#!${Bun.which("tail")} -fn0\n`, { mode: 0o700 });
  return path;
}

/** Waits until no process has one of these pids. */
export async function untilGone(pids: readonly number[]): Promise<void> {
  for (const deadline = performance.now() + WAIT_MS; ; await Bun.sleep(1)) {
    const left = pids.filter(isRunning);
    if (left.length === 0) return;
    if (performance.now() > deadline) throw new Error(`Processes ${left.join(", ")} are left`);
  }
}

/** Whether there is such a process, zombies left out. */
export function isRunning(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return !stat.slice(stat.lastIndexOf(")")).startsWith(") Z");
  } catch {
    return false;
  }
}

/** Asks for one answer that ends with a byte, or has a length; counts its bytes. */
async function askRaw(path: string, request: string, end: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  let bytes = 0;
  const socket = await Bun.connect<undefined>({
    unix: path,
    socket: {
      data: (_socket, chunk) => {
        bytes += chunk.length;
        if (end === 0 ? chunk.at(-1) === NEWLINE : bytes >= end) resolve(bytes);
      },
      close: () => reject(new Error(`The answer ended after ${bytes} bytes`)),
    },
  });
  socket.write(request);
  return promise.finally(() => socket.end());
}

export interface OrchestraOptions {
  /** Of each instance. */
  readonly settings?: Partial<InstanceSettings>;
  /** Whether it is the executable, and not the source that Bun reads. */
  readonly isBuilt?: boolean;
}

export class Orchestra implements Keeper {
  readonly #ids: readonly string[];
  /** Starts the daemon, each time in the same way. */
  readonly #launch: () => Promise<DaemonProcess>;
  #daemon: DaemonProcess;
  #clients: ControlClient[] = [];
  #events: Bun.Socket<undefined> | undefined;
  #onEvent: (kind: string, id: string, pid: number) => void = () => {};

  private constructor(
    ids: readonly string[],
    daemon: DaemonProcess,
    launch: () => Promise<DaemonProcess>,
  ) {
    this.#ids = ids;
    this.#daemon = daemon;
    this.#launch = launch;
  }

  static async open(
    { folder }: Place,
    count: number,
    { settings = {}, isBuilt = false }: OrchestraOptions = {},
  ): Promise<Orchestra> {
    mkdirSync(folder);
    const path = writeIdler(folder);
    const ids = Array.from({ length: count }, () => newInstanceId());
    const options = isBuilt ? { command: await buildDaemon(folder) } : {};
    const launch = (): Promise<DaemonProcess> => DaemonProcess.start(folder, options);
    const daemon = await launch();
    await daemon.requestAll(ids.map((id) => ({ kind: "Add", id, path, settings })));
    return new Orchestra(ids, daemon, launch);
  }

  get pid(): number {
    return this.#daemon.pid;
  }

  async start(): Promise<readonly number[]> {
    await this.#daemon.requestAll(
      this.#ids.map((id) => ({ kind: "Start", id, priority: undefined })),
    );
    return this.#pids();
  }

  async stop(): Promise<void> {
    const address = { kind: "unix", path: this.#daemon.path } as const;
    const wanted = Math.min(CONNECTIONS, this.#ids.length);
    while (this.#clients.length < wanted) {
      const client = await ControlClient.connect(address, { answerMs: WAIT_MS });
      await client.request({ kind: "Version" });
      this.#clients.push(client);
    }
    const request = (id: string): Request => ({ kind: "Stop", id });
    await Promise.all(this.#ids.map((id, i) => this.#clients[i % wanted]?.request(request(id))));
  }

  async replace(index: number, pid: number): Promise<Replacement> {
    this.#events ??= await this.#follow();
    const { promise, resolve } = Promise.withResolvers<Replacement>();
    let noticedMs = Number.NaN;
    const begin = performance.now();
    this.#onEvent = (kind, id, other) => {
      if (id !== this.#ids[index]) return;
      const elapsedMs = performance.now() - begin;
      if (kind === "exited" && other === pid) noticedMs = elapsedMs;
      if (kind === "started" && noticedMs >= 0)
        resolve({ noticedMs, replacedMs: elapsedMs, pid: other });
    };
    process.kill(pid, "SIGKILL");
    return promise;
  }

  async rebirth(): Promise<number> {
    const pids = await this.#pids();
    await this.#daemon.crash();
    await untilGone(pids);
    const begin = performance.now();
    this.#daemon = await this.#launch();
    await this.#pids();
    return performance.now() - begin;
  }

  async ask(): Promise<{ bytes: number; elapsedMs: number }> {
    const begin = performance.now();
    const bytes = await askRaw(this.#daemon.path, '"Info"\n', 0);
    return { bytes, elapsedMs: performance.now() - begin };
  }

  async close(): Promise<void> {
    for (const client of this.#clients) client.close();
    this.#events?.end();
    await this.#daemon.stop();
  }

  /** @throws if one does not run */
  async #pids(): Promise<readonly number[]> {
    const { runtimes } = await this.#daemon.info();
    return this.#ids.map((id) => {
      const pid = runtimes[id]?.pid;
      if (pid === null || pid === undefined) throw new Error(`Instance ${id} does not run`);
      return pid;
    });
  }

  async #follow(): Promise<Bun.Socket<undefined>> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const scanner = new LineScanner(1024 * 1024, (chunk, start, end) => {
      for (const line of chunk.toString("utf8", start, end).split("\n")) {
        if (line === "") continue;
        const { Ok: isAnswer, kind, id, detail } = JSON.parse(line);
        if (isAnswer === undefined) this.#onEvent(kind, id, detail.pid);
        else resolve();
      }
      return end;
    });
    const socket = await Bun.connect<undefined>({
      unix: this.#daemon.path,
      socket: { data: (_socket, chunk) => scanner.push(chunk) },
    });
    socket.write('{"Events":{"last":0,"follow":true}}\n');
    await promise;
    return socket;
  }
}

/** The bare program, from its start to its end. */
interface Life {
  readonly process: Bun.Subprocess;
  readonly helper: Helper;
}

export class BareKeeper implements Keeper {
  readonly #place: Place;
  readonly #plan: KeeperPlan;
  #lives = 0;
  #life: Life | undefined;

  private constructor(place: Place, plan: KeeperPlan) {
    this.#place = place;
    this.#plan = plan;
  }

  static async open(
    place: Place,
    count: number,
    options: Partial<Pick<KeeperPlan, "listens" | "answers">>,
  ): Promise<BareKeeper> {
    const { folder, side } = place;
    mkdirSync(folder);
    const path = writeIdler(folder);
    const programs = Array.from({ length: count }, (_, i) => ({
      path,
      env: {
        PATH,
        XDG_RUNTIME_DIR: folder,
        VEECLE_IPC_SOCKET: join(folder, `${i}.socket`),
        VEECLE_RUNTIME_ID: newInstanceId(),
      },
    }));
    const plan: KeeperPlan = {
      name: join(folder, "keeper"),
      side: side.path,
      programs,
      signal: "SIGINT",
      listens: options.listens ?? false,
      answers: options.answers,
    };
    const keeper = new BareKeeper(place, plan);
    await keeper.#begin();
    return keeper;
  }

  get pid(): number {
    return this.#process.pid;
  }

  get #process(): Bun.Subprocess {
    return (this.#life as Life).process;
  }

  get #helper(): Helper {
    return (this.#life as Life).helper;
  }

  async start(): Promise<readonly number[]> {
    const { pids = [] } = await this.#helper.ask({ kind: "spawn" }, WAIT_MS);
    return pids;
  }

  async stop(): Promise<void> {
    await this.#helper.ask({ kind: "kill" }, WAIT_MS);
  }

  async replace(_index: number, pid: number): Promise<Replacement> {
    const begin = performance.now();
    process.kill(pid, "SIGKILL");
    await this.#helper.next(WAIT_MS);
    const noticedMs = performance.now() - begin;
    const { pids: [, next = 0] = [] } = await this.#helper.next(WAIT_MS);
    return { noticedMs, replacedMs: performance.now() - begin, pid: next };
  }

  async rebirth(): Promise<number> {
    await this.stop();
    this.#process.kill("SIGKILL");
    await this.#process.exited;
    const begin = performance.now();
    await this.#begin();
    await this.start();
    return performance.now() - begin;
  }

  async ask(): Promise<{ bytes: number; elapsedMs: number }> {
    const { path = "", bytes: wanted = 0 } = this.#plan.answers ?? {};
    const begin = performance.now();
    const bytes = await askRaw(path, '"Info"\n', wanted);
    return { bytes, elapsedMs: performance.now() - begin };
  }

  async close(): Promise<void> {
    await this.stop();
    this.#process.kill("SIGKILL");
    await this.#process.exited;
  }

  async #begin(): Promise<void> {
    const name = `${this.#plan.name}${this.#lives++}`;
    writeFileSync(`${name}.json`, JSON.stringify({ ...this.#plan, name }));
    const child = Bun.spawn({
      cmd: [process.execPath, BARE, `${name}.json`],
      stdio: ["ignore", "ignore", "inherit"],
    });
    this.#life = { process: child, helper: await this.#place.side.helper(name) };
  }
}
