// A small system in memory: processes that fork, leave their session and ignore signals, and a clock
// turned by hand. Nothing happens by itself, and everything happens in the same order every time.
//
//   host.onSpawn = (process) => { process.react = dieOf("SIGINT"); };   // how programs behave
//   const child = host.processes[0].fork({ session: true, mark: null }); // setsid, env -i
//   host.processes[0].exit({ code: 3 });  host.turn(0);                  // told on the clock, as exits are
//   await host.run(5_000);                                               // and promises settle in between
//
// SIGKILL ends every process that is not `isStuck`; SIGSTOP and SIGCONT stop it and let it go on, and
// one that stands still reacts to nothing else. A process that was spawned is a zombie until its exit
// is told, `exitDelayMs` after its end; others vanish, and their children become those of process 1.
// Its output ends when the last process that inherited it is gone. Pids count up from 100; to have one
// used again, set `nextPid`. A snapshot shows the moment at which it was asked for, `snapshotMs` later.

import type { MemoryKills } from "../../src/host/memory.ts";
import type { Host, Spawned, SpawnRequest } from "../../src/host.ts";
import type { Exit } from "../../src/model.ts";
import {
  MARK_VARIABLE,
  type ProcessEntry,
  type ProcessIdentity,
  type Resources,
  type SignalResult,
} from "../../src/host/processes.ts";

/** What a program does about a signal that it may catch: ends in this way, or goes on. */
export type Reaction = (signal: string, process: FakeProcess) => Partial<Exit> | undefined;

/** Programs that the given signals end. */
export function dieOf(...signals: string[]): Reaction {
  return (signal) => (signals.includes(signal) ? { signal } : undefined);
}

export interface ForkOptions {
  /** Leaves the session and the group, as `setsid` does. */
  readonly session?: boolean;
  /** Another mark, or none. */
  readonly mark?: string | null;
  /** Lets go of the output that it inherited. */
  readonly closesOutput?: boolean;
  readonly command?: string;
}

interface Birth extends Omit<ProcessEntry, "state"> {
  readonly output: SpawnRequest | undefined;
  readonly request: SpawnRequest | undefined;
}

export class FakeProcess implements ProcessEntry {
  readonly pid: number;
  parent: number;
  readonly group: number;
  readonly session: number;
  readonly startTicks: number;
  readonly command: string;
  readonly mark: string | undefined;
  /** What the process was started with whose output this one holds. */
  readonly output: SpawnRequest | undefined;
  /** What it was started with, if it was spawned by us: its exit is told then. */
  readonly request: SpawnRequest | undefined;
  readonly signals: string[] = [];
  /** By default it goes on, whatever signal comes. */
  react: Reaction = () => undefined;
  /** Not even SIGKILL ends it, as when it waits for a disk. */
  isStuck = false;
  /** Not ours to signal. */
  isForeign = false;
  state = "S";
  readonly #host: FakeHost;

  constructor(host: FakeHost, birth: Birth) {
    this.#host = host;
    this.pid = birth.pid;
    this.parent = birth.parent;
    this.group = birth.group;
    this.session = birth.session;
    this.startTicks = birth.startTicks;
    this.command = birth.command;
    this.mark = birth.mark;
    this.output = birth.output;
    this.request = birth.request;
  }

  get isAlive(): boolean {
    return this.state !== "Z";
  }

  fork(options: ForkOptions = {}): FakeProcess {
    return this.#host.fork(this, options);
  }

  /** It ends; whoever waits for it is told on the clock. */
  exit(exit: Partial<Exit> = { code: 0 }): void {
    if (this.isAlive) this.#host.end(this, { code: undefined, signal: undefined, ...exit });
  }

  receive(signal: string): void {
    if (!this.isAlive) return;
    this.signals.push(signal);
    if (signal === "SIGKILL") {
      if (!this.isStuck) this.exit({ signal });
    } else if (signal === "SIGSTOP") this.state = "T";
    else if (signal === "SIGCONT") this.state = "S";
    else if (this.state !== "T") {
      const exit = this.react(signal, this);
      if (exit !== undefined) this.exit(exit);
    }
  }
}

export class FakeHost implements Host {
  /** Those that were spawned, also after their end. */
  readonly processes: FakeProcess[] = [];
  /** Thrown by the next spawns. */
  fault: unknown;
  permitsNice = true;
  /** What the kernel says that it has ended for want of memory. */
  kills: MemoryKills | undefined;
  readonly niced: number[] = [];
  /** Of whom nobody reads the output any more. */
  readonly released: number[] = [];
  /** Tells a program how to behave before its start is answered. */
  onSpawn: (process: FakeProcess) => void = () => {};
  exitDelayMs = 0;
  snapshotMs = 0;
  nextPid = 100;
  /** How far somebody has set the wall clock. */
  wallShiftMs = 0;
  /** How long a number is given to nobody after its process has gone. */
  pidRestMs = 0;
  readonly #freedMs: Map<number, number> = new Map();
  #table: Map<number, FakeProcess> = new Map();
  #births = 0;
  #nowMs = 0;
  #timers: { at: number; action: () => void }[] = [];
  /** How often something was asked of us that may be followed by more. */
  #calls = 0;

  /** Every process there is, zombies included. */
  get table(): FakeProcess[] {
    return [...this.#table.values()];
  }

  spawn(request: SpawnRequest): Spawned {
    this.#calls++;
    if (this.fault !== undefined) throw this.fault;
    const process = this.#lead(this.#takePid(), {
      startTicks: this.#nextTicks(),
      command: request.path.slice(request.path.lastIndexOf("/") + 1).slice(0, 15),
      mark: request.env[MARK_VARIABLE],
      output: request,
      request,
    });
    this.processes.push(process);
    this.onSpawn(process);
    const { pid, startTicks } = process;
    return { pid, startTicks, releaseOutput: () => void this.released.push(pid) };
  }

  /** Called by `FakeProcess.fork`. */
  fork(parent: FakeProcess, options: ForkOptions): FakeProcess {
    const pid = this.#takePid();
    const isLeader = options.session === true;
    const child = new FakeProcess(this, {
      pid,
      parent: parent.isAlive ? parent.pid : 1,
      group: isLeader ? pid : parent.group,
      session: isLeader ? pid : parent.session,
      startTicks: this.#nextTicks(),
      command: options.command ?? parent.command,
      mark: options.mark === undefined ? parent.mark : (options.mark ?? undefined),
      output: options.closesOutput === true ? undefined : parent.output,
      request: undefined,
    });
    child.react = parent.react;
    this.#table.set(pid, child);
    return child;
  }

  /** Puts a process of somebody else into the table: a session of its own, without a mark. */
  stranger(pid: number = this.#takePid(), startTicks: number = this.#nextTicks()): FakeProcess {
    return this.#lead(pid, {
      startTicks,
      command: "stranger",
      mark: undefined,
      output: undefined,
      request: undefined,
    });
  }

  /** Called by `FakeProcess.exit`. */
  end(process: FakeProcess, exit: Exit): void {
    const { request, output, pid } = process;
    process.state = "Z";
    for (const child of this.#table.values()) if (child.parent === pid) child.parent = 1;
    if (request === undefined) this.#free(process);
    else {
      this.after(this.exitDelayMs, () => {
        if (this.#table.get(pid) === process) this.#free(process);
        request.onExit(exit);
      });
    }
    if (output === undefined) return;
    const isHeld = this.table.some((other) => other.isAlive && other.output === output);
    if (!isHeld) this.after(this.exitDelayMs, () => output.onOutputEnd());
  }

  signalGroup(pgid: number, signal: NodeJS.Signals | 0): boolean {
    this.#calls++;
    const group = this.table.filter(({ group: number }) => number === pgid);
    if (group.length === 0) return false;
    if (group.every(({ isForeign }) => isForeign)) throw denied();
    if (signal !== 0) {
      for (const process of group) if (!process.isForeign) process.receive(signal);
    }
    return true;
  }

  signalProcess({ pid, startTicks }: ProcessIdentity, signal: NodeJS.Signals): SignalResult {
    const process = this.#table.get(pid);
    if (process?.startTicks !== startTicks || !process.isAlive) return "gone";
    if (process.isForeign) return "denied";
    process.receive(signal);
    return "sent";
  }

  /** As many as anybody may want. */
  descriptorsLeft(): number {
    return 1_000_000;
  }

  childrenOf(pid: number): number[] {
    return this.table.filter(({ parent }) => parent === pid).map((entry) => entry.pid);
  }

  memoryKills(): MemoryKills | undefined {
    return this.kills;
  }

  readMark(pid: number): string | undefined {
    return this.readProcess(pid)?.mark;
  }

  readProcess(pid: number): ProcessEntry | undefined {
    const process = this.#table.get(pid);
    return process === undefined ? undefined : copy(process);
  }

  snapshot(): Promise<readonly ProcessEntry[]> {
    this.#calls++;
    const entries = this.table.map(copy);
    if (this.snapshotMs === 0) return Promise.resolve(entries);
    return new Promise((resolve) => void this.after(this.snapshotMs, () => resolve(entries)));
  }

  resources({ pid, startTicks }: ProcessIdentity): Resources | undefined {
    if (this.#table.get(pid)?.startTicks !== startTicks) return undefined;
    return { uptimeMs: 1, cpuMs: 1, residentBytes: 1, openFiles: 1, threads: 1 };
  }

  setPriority(_pid: number, nice: number): void {
    if (!this.permitsNice) throw Object.assign(new Error("EACCES"), { code: "EACCES" });
    this.niced.push(nice);
  }

  readonly now = (): number => this.#nowMs;

  /** The clock as processes have it in their start times. */
  ticks(): number {
    return 1_000 + this.#nowMs / 10;
  }

  readonly wallMs = (): number => 1_700_000_000_000 + this.#nowMs + this.wallShiftMs;

  readonly after = (ms: number, action: () => void): (() => void) => {
    this.#calls++;
    const timer = { at: this.#nowMs + ms, action };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  };

  /** Time passes in which nothing can happen: somebody holds the event loop up. */
  stall(ms: number): void {
    this.#nowMs += ms;
  }

  /** Turns the clock; timers fire in their order. What waits for a promise comes later: see `run`. */
  turn(ms: number): void {
    const until = this.#nowMs + ms;
    while (this.#fire(until));
    this.#nowMs = Math.max(this.#nowMs, until);
  }

  /** Turns the clock, and lets promises settle before the next timer fires. */
  async run(ms: number): Promise<void> {
    const until = this.#nowMs + ms;
    await this.settle();
    while (this.#fire(until)) await this.settle();
    this.#nowMs = Math.max(this.#nowMs, until);
  }

  /** Waits until no promise leads to a further call of ours. */
  async settle(): Promise<void> {
    for (let hop = 0, calls = this.#calls; hop < QUIET_HOPS; hop++) {
      await undefined;
      if (calls !== this.#calls) [hop, calls] = [0, this.#calls];
    }
  }

  get timers(): number {
    return this.#timers.length;
  }

  #fire(until: number): boolean {
    let due: { at: number; action: () => void } | undefined;
    for (const timer of this.#timers) {
      if (timer.at <= until && (due === undefined || timer.at < due.at)) due = timer;
    }
    if (due === undefined) return false;
    this.#timers = this.#timers.filter((other) => other !== due);
    this.#nowMs = Math.max(this.#nowMs, due.at);
    due.action();
    return true;
  }

  /** A new process that leads a session. */
  #lead(
    pid: number,
    birth: Pick<Birth, "startTicks" | "command" | "mark" | "output" | "request">,
  ): FakeProcess {
    const place = { pid, parent: 1, group: pid, session: pid };
    const process = new FakeProcess(this, { ...place, ...birth });
    this.#table.set(pid, process);
    return process;
  }

  #free({ pid, group, session }: FakeProcess): void {
    this.#table.delete(pid);
    for (const number of [pid, group, session]) this.#freedMs.set(number, this.#nowMs);
  }

  /** As the clock tells, and never twice the same. */
  #nextTicks(): number {
    return this.ticks() + this.#births++ / 1e9;
  }

  /** The next number that nobody has, and no group or session either. */
  #takePid(): number {
    const taken = new Set(this.table.flatMap(({ pid, group, session }) => [pid, group, session]));
    const restedMs = this.#nowMs - this.pidRestMs;
    const isTaken = (pid: number): boolean =>
      taken.has(pid) || (this.#freedMs.get(pid) ?? Number.NEGATIVE_INFINITY) > restedMs;
    while (isTaken(this.nextPid)) this.nextPid++;
    return this.nextPid++;
  }
}

/** Longer than any chain of promises between two calls of the host. */
const QUIET_HOPS = 16;

function copy(process: FakeProcess): ProcessEntry {
  const { pid, parent, group, session, startTicks, state, command, mark } = process;
  return { pid, parent, group, session, startTicks, state, command, mark };
}

function denied(): Error {
  return Object.assign(new Error("EPERM"), { code: "EPERM", errno: -1 });
}
