// A real daemon in a process and folders of its own, its programs, and the audit after a test.
//
// The audit is the other half of every test: every message is accounted for, no zombie, no process of
// an instance that is not listed, no leftover socket or file, and as many open file descriptors as at
// the start.

import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import type { Info } from "../../src/protocol/info.ts";
import type { Priority } from "../../src/model.ts";
import { type Actor, type Puppet, Stage } from "../fixtures/stage.ts";
import { checkAccounts } from "./accounts.ts";
import { scratch } from "./scratch.ts";
import { type Answer, Control, type Dialect, until, Wire, within } from "./wire.ts";

const DAEMON = join(import.meta.dir, "../../src/daemon.ts");
const FIXTURES = join(import.meta.dir, "../fixtures");

export interface StartOptions {
  /** Options of the daemon besides `--control-socket`. */
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Shell commands that the daemon is started behind, such as `ulimit -f 1024`. */
  readonly limits?: string;
  /** Address of the control socket; a path in the daemon's own folder if it is left out. */
  readonly control?: string;
}

/** Starts a daemon for `body`, audits it, and leaves nothing behind, whatever happens. */
export async function withDaemon(
  body: (daemon: Daemon) => Promise<void>,
  options: StartOptions = {},
): Promise<void> {
  const daemon = new Daemon(options);
  try {
    await daemon.ready();
    await body(daemon);
    await daemon.audit();
  } catch (error) {
    console.error(`The daemon's log ends with:\n${daemon.log.slice(-4_000)}`);
    throw error;
  } finally {
    await daemon.destroy();
  }
}

export class Daemon {
  /** Everything of this test. */
  readonly folder: string = scratch();
  /** The daemon's runtime folder, which is empty after its end. */
  readonly runFolder: string = join(this.folder, "run");
  /** Where the daemon remembers. */
  readonly stateFolder: string = join(this.folder, "state");
  /** Standard error of the daemon, from its start. */
  log = "";
  readonly process: Bun.Subprocess<"ignore", "ignore", "pipe">;
  readonly #wires: Wire[] = [];
  readonly #stage: Stage = new Stage(join(this.folder, "stage"));
  #control: Promise<Control> | undefined;
  #address: string;
  #descriptors = 0;
  #programs = 0;
  readonly #collected: Promise<void>;

  constructor(options: StartOptions) {
    mkdirSync(this.runFolder, { mode: 0o700 });
    this.#address = options.control ?? join(this.runFolder, "control.socket");
    this.process = Bun.spawn({
      cmd: [
        ...(options.limits === undefined ? [] : ["sh", "-c", `${options.limits}; exec "$@"`, "sh"]),
        ...daemonCommand("--control-socket", this.#address, ...(options.args ?? [])),
      ],
      cwd: this.folder,
      env: { ...this.environment, ...options.env },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    this.#collected = this.#collect();
  }

  /** The environment of a daemon in this folder. */
  get environment(): Record<string, string> {
    return {
      PATH: process.env["PATH"] ?? "/usr/bin:/bin",
      XDG_RUNTIME_DIR: this.runFolder,
      XDG_STATE_HOME: this.stateFolder,
      PUPPET_STAGE: this.#stage.path,
    };
  }

  /** Address of the control socket; with the port that was chosen. */
  get address(): string {
    return this.#address;
  }

  get pid(): number {
    return this.process.pid;
  }

  get isRunning(): boolean {
    return this.process.exitCode === null && this.process.signalCode === null;
  }

  /** Waits for the log to say that the daemon listens. */
  async ready(): Promise<void> {
    const [, address] = await this.logged(/control: listening socket="?([^"\n]+)"?\n/);
    this.#address = address as string;
    this.#descriptors = this.descriptors().length;
  }

  /** Address of the UDP socket, with the port that was chosen. */
  async ipcAddress(): Promise<string> {
    const [, address] = await this.logged(/with other orchestrators socket="?([^"\n]+)"?\n/);
    return address as string;
  }

  /** Waits until the log matches. */
  async logged(pattern: RegExp, withinMs?: number): Promise<RegExpExecArray> {
    return until(
      `the log matches ${pattern}`,
      () => {
        const match = pattern.exec(this.log);
        if (match === null && !this.isRunning) throw new Error(`The daemon ended: ${this.log}`);
        return match ?? undefined;
      },
      withinMs,
    );
  }

  /** Waits for the log to match, and expects that it does at most once a second since `sinceMs`. */
  async loggedRarely(pattern: RegExp, sinceMs: number): Promise<void> {
    await this.logged(pattern);
    const count = this.log.match(new RegExp(pattern, "g"))?.length ?? 0;
    const most = 2 + (performance.now() - sinceMs) / 1_000;
    if (count > most) throw new Error(`The log matches ${pattern} ${count} times`);
  }

  /** A raw connection to the control socket. */
  async connect(): Promise<Wire> {
    const wire = await Wire.connect(this.#address);
    this.#wires.push(wire);
    return wire;
  }

  async control(dialect: Dialect = "veecle"): Promise<Control> {
    return new Control(await this.connect(), dialect);
  }

  /** Sends a request over a connection that is kept open. */
  async ask(request: unknown, withinMs?: number): Promise<Answer> {
    return (await this.#requests()).ask(request, withinMs);
  }

  async ok(request: unknown, withinMs?: number): Promise<unknown> {
    return (await this.#requests()).ok(request, withinMs);
  }

  async info(): Promise<Info> {
    return (await this.ok("Info")) as Info;
  }

  async runtime(id: string): Promise<Info["runtimes"][string]> {
    const runtime = (await this.info()).runtimes[id];
    if (runtime === undefined) throw new Error(`Instance ${id} is not listed`);
    return runtime;
  }

  /** Registers a program and returns its id. */
  async add(path: string, privileged: boolean = false): Promise<string> {
    const id = crypto.randomUUID();
    await this.ok({ Add: { id, path, privileged } });
    return id;
  }

  async start(id: string, priority: Priority | null = null): Promise<void> {
    await this.ok({ Start: { id, priority } });
  }

  async stop(id: string): Promise<void> {
    await this.ok({ Stop: id });
  }

  async link(typeName: string, to: string, from?: string): Promise<void> {
    await this.ok({ Link: { type_name: typeName, to, ...(from === undefined ? {} : { from }) } });
  }

  /** Waits until an instance's process has ended, and returns how it is listed then. */
  async ended(id: string): Promise<Info["runtimes"][string]> {
    return until(`instance ${id} has ended`, async () => {
      const runtime = await this.runtime(id);
      return runtime.state === "stopped" && runtime;
    });
  }

  /** Path of a program that runs a fixture with arguments. */
  program(fixture: string, ...args: readonly (string | number)[]): string {
    const interpreter = fixture.endsWith(".ts") ? process.execPath : "/bin/sh";
    const words = [interpreter, join(FIXTURES, fixture), ...args].map((word) => `'${word}'`);
    return this.script(`#!/bin/sh\nexec ${words.join(" ")}\n`);
  }

  /** Path of an executable file with this text. */
  script(text: string, mode: number = 0o700): string {
    const path = join(this.folder, `program-${this.#programs++}`);
    writeFileSync(path, text);
    chmodSync(path, mode);
    return path;
  }

  /** An instance that does what the test tells it; it runs, and has not connected. */
  async puppet(options: { privileged?: boolean } = {}): Promise<Puppet> {
    const id = await this.add(this.program("puppet.ts"), options.privileged);
    return this.startPuppet(id);
  }

  /** Starts an instance whose program is the puppet. */
  async startPuppet(id: string): Promise<Puppet> {
    this.#stage.listen();
    await this.start(id);
    return this.#stage.puppet(id);
  }

  /** An instance that runs a fixture which reports and takes orders. */
  async actor(fixture: string, ...args: readonly (string | number)[]): Promise<Actor> {
    return this.startActor(await this.add(this.program(fixture, ...args)));
  }

  /** Starts an instance whose program is an actor. */
  async startActor(id: string, priority?: Priority): Promise<Actor> {
    this.#stage.listen();
    await this.start(id, priority);
    return this.#stage.actor(id);
  }

  /** Open file descriptors of the daemon, as what they lead to. */
  descriptors(): string[] {
    const folder = `/proc/${this.pid}/fd`;
    return readdirSync(folder).flatMap((fd) => readOr("", () => readlinkSync(join(folder, fd))));
  }

  /** Resident memory of the daemon in bytes. */
  memory(): number {
    const status = readFileSync(`/proc/${this.pid}/status`, "utf8");
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
  }

  /** Processes that carry an instance's environment of this daemon, with that instance's id. */
  processes(): { pid: number; id: string }[] {
    return readdirSync("/proc").flatMap((name) => {
      if (!/^\d+$/.test(name)) return [];
      const environment = readOr("", () => readFileSync(`/proc/${name}/environ`, "utf8"));
      if (!environment.includes(`VEECLE_IPC_SOCKET=${this.folder}/`)) return [];
      const id = /(?:^|\0)VEECLE_RUNTIME_ID=([^\0]*)/.exec(environment)?.[1] ?? "";
      return [{ pid: Number(name), id }];
    });
  }

  /** Dead children that nobody has asked for their exit code. */
  zombies(): number[] {
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .filter((name) => {
        const stat = readOr("", () => readFileSync(`/proc/${name}/stat`, "utf8"));
        const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
        return state === "Z" && Number(parent) === this.pid;
      })
      .map(Number);
  }

  signal(signal: NodeJS.Signals): void {
    this.process.kill(signal);
  }

  /** Waits for the daemon's end; returns its exit code, or the signal's name. */
  async exit(withinMs?: number): Promise<number | string> {
    await within("the daemon ends", this.process.exited, withinMs);
    await within("the log ends", this.#collected);
    return this.process.signalCode ?? this.process.exitCode ?? "nothing";
  }

  /** Ends the daemon as a user does, and checks that it leaves nothing and met no defect. */
  async stopAll(): Promise<void> {
    if (this.isRunning) {
      this.signal("SIGTERM");
      const code = await this.exit();
      if (code !== 0) throw new Error(`The daemon ended with ${code}`);
    }
    await until(
      () => `no process is left, and there are ${JSON.stringify(this.processes())}`,
      () => this.processes().length === 0,
    );
    const files = readdirSync(this.runFolder);
    if (files.length > 0) throw new Error(`The daemon left ${files.join(", ")}`);
    if (/\bdefect\b/i.test(this.log)) throw new Error("The daemon's log tells of a defect");
  }

  async audit(): Promise<void> {
    if (this.isRunning) {
      const info = await this.info();
      checkAccounts(info);
      const { runtimes } = info;
      const strangers = (): { pid: number; id: string }[] =>
        this.processes().filter(({ id }) => runtimes[id]?.running !== true);
      await until(
        () => `no process runs that is not listed, and there are ${JSON.stringify(strangers())}`,
        () => strangers().length === 0,
      );
      await this.ok("Clear");
      this.#control = undefined;
      for (const wire of this.#wires) wire.close();
      await until(
        () => `no zombie is left, and there are ${this.zombies().join(", ")}`,
        () => this.zombies().length === 0,
      );
      await until(
        () => `${this.#descriptors} descriptors, and there are ${this.descriptors().join(", ")}`,
        () => this.descriptors().length <= this.#descriptors,
      );
      const left = readdirSync(this.runFolder, { recursive: true, encoding: "utf8" })
        .map((path) => path.split("/").at(-1) as string)
        .filter(
          (name) =>
            !/^(control\.socket(\.lock)?|veecle-orchestrator-.*|lock|output|binaries)$/.test(name),
        );
      if (left.length > 0) throw new Error(`The instances left ${left.join(", ")}`);
    }
    await this.stopAll();
  }

  /** Ends everything at once, for the end of a test that failed too. */
  async destroy(): Promise<void> {
    for (const wire of this.#wires) wire.close();
    if (this.isRunning) this.process.kill("SIGKILL");
    await this.process.exited;
    for (const { pid } of this.processes()) readOr("", () => void process.kill(pid, "SIGKILL"));
    this.#stage.close();
    rmSync(this.folder, { recursive: true, force: true });
  }

  #requests(): Promise<Control> {
    this.#control ??= this.control("native");
    return this.#control;
  }

  async #collect(): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of this.process.stderr) {
      this.log += decoder.decode(chunk, { stream: true });
    }
  }
}

/** The command line of a daemon from source. */
export function daemonCommand(...args: readonly string[]): string[] {
  return [process.execPath, DAEMON, ...args];
}

/** How a program ended, with everything that it printed. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
}

/** A daemon that is started as it is, without waiting for anything. */
export class Launched {
  readonly process: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly #startMs: number = performance.now();
  readonly #texts: Promise<[string, string]>;

  /** `wrapper` is a command that runs what follows it. */
  constructor(
    args: readonly string[],
    env: Readonly<Record<string, string>>,
    wrapper: readonly string[] = [],
  ) {
    this.process = Bun.spawn({
      cmd: [...wrapper, ...daemonCommand(...args)],
      env: { PATH: process.env["PATH"] ?? "", ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#texts = Promise.all([this.process.stdout.text(), this.process.stderr.text()]);
  }

  /** A connection to its socket, once it answers there. @throws if it ends before */
  async control(path: string): Promise<Control> {
    return until(`it serves ${path}`, async () => {
      if (this.process.exitCode !== null) throw new Error("The daemon has ended");
      const wire = await Wire.connect(path).catch(() => undefined);
      if (wire === undefined) return undefined;
      const control = new Control(wire, "native");
      try {
        await control.ok("Version");
        return control;
      } catch (error) {
        // One that was killed may live on for a moment in what it was starting.
        if (String(error).includes("the connection ended")) return undefined;
        throw error;
      }
    });
  }

  async end(signal?: NodeJS.Signals): Promise<Ended> {
    if (signal !== undefined) this.process.kill(signal);
    const [stdout, stderr] = await within("the daemon ends", this.#texts);
    const code = await within("the daemon ends", this.process.exited);
    return { code, stdout, stderr, ms: performance.now() - this.#startMs };
  }
}

/** Starts a daemon whose runtime folder is that of the test, with these options and variables. */
export type Launch = (args?: readonly string[], env?: Readonly<Record<string, string>>) => Launched;

/** Runs `body` with an empty folder and a way to start daemons there; ends and removes all of it. */
export async function withFolder(
  body: (folder: string, launch: Launch) => Promise<void>,
): Promise<void> {
  const folder = scratch();
  const state = scratch();
  const launched: Launched[] = [];
  try {
    await body(folder, (args = [], env = {}) => {
      const daemon = new Launched(args, {
        XDG_RUNTIME_DIR: folder,
        XDG_STATE_HOME: state,
        ...env,
      });
      launched.push(daemon);
      return daemon;
    });
  } finally {
    for (const { process } of launched) process.kill("SIGKILL");
    await Promise.all(launched.map(({ process }) => process.exited));
    for (const path of [folder, state]) rmSync(path, { recursive: true, force: true });
  }
}

function readOr<T>(fallback: T, read: () => T): T {
  try {
    return read();
  } catch {
    return fallback; // a process or descriptor that ended between two looks
  }
}
