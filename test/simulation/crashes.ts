// Many supervisors whose programs end again and again, on a clock turned by hand, for days.
//
// The system here is as small as it can be: processes that have no children and end by themselves,
// and timers in a heap. So a day of five hundred of them takes some seconds.

import type { Host, Spawned, SpawnRequest } from "../../src/host.ts";
import {
  MAX_RESTARTS,
  RESTART_JITTER,
  RESTART_MAX_DELAY_MS,
  RESTART_RESET_MS,
  RESTART_WINDOW_MS,
} from "../../src/limits.ts";
import { Log, parseLogFilter } from "../../src/log.ts";
import { MARK_VARIABLE, type ProcessEntry } from "../../src/host/processes.ts";
import { Output } from "../../src/output.ts";
import { DEFAULT_SETTINGS } from "../../src/settings.ts";
import type { HappeningKind } from "../../src/supervisor/options.ts";
import { Supervisor } from "../../src/supervisor.ts";
import type { Random } from "../support/random.ts";

/** A pause is over this much later at most: what the last run left is looked for first. */
const SLACK_MS = 200;
/** Longer than any chain of promises from one timer to the next. */
const QUIET_HOPS = 8;

const log = new Log(
  parseLogFilter("off"),
  () => {},
  () => 0,
).target("supervisor");

interface Timer {
  readonly at: number;
  readonly order: number;
  action: (() => void) | undefined;
}

/** A clock turned by hand. */
class Clock {
  nowMs = 0;
  /** Timers that are set. */
  timers = 0;
  readonly #heap: Timer[] = [];
  #orders = 0;

  readonly after = (ms: number, action: () => void): (() => void) => {
    const timer: Timer = { at: this.nowMs + ms, order: this.#orders++, action };
    this.#push(timer);
    this.timers++;
    return () => {
      if (timer.action !== undefined) this.timers--;
      timer.action = undefined;
    };
  };

  /** Turns the clock; what waits for a promise comes before the next moment. */
  async run(ms: number): Promise<void> {
    const until = this.nowMs + ms;
    for (let next = this.#heap[0]; next !== undefined && next.at <= until; next = this.#heap[0]) {
      const { at } = next;
      this.nowMs = Math.max(this.nowMs, at);
      while (this.#heap[0] !== undefined && this.#heap[0].at <= at) this.#fire();
      for (let hop = 0; hop < QUIET_HOPS; hop++) await undefined;
    }
    this.nowMs = until;
  }

  #fire(): void {
    const timer = this.#pop();
    const { action } = timer;
    if (action === undefined) return;
    timer.action = undefined;
    this.timers--;
    action();
  }

  #push(timer: Timer): void {
    const heap = this.#heap;
    let at = heap.length;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(timer, heap[parent] as Timer)) break;
      heap[at] = heap[parent] as Timer;
      at = parent;
    }
    heap[at] = timer;
  }

  #pop(): Timer {
    const heap = this.#heap;
    const first = heap[0] as Timer;
    const last = heap.pop() as Timer;
    if (heap.length === 0) return first;
    let at = 0;
    for (;;) {
      const [left, right] = [2 * at + 1, 2 * at + 2];
      let least = left;
      if (left >= heap.length) break;
      if (right < heap.length && isBefore(heap[right] as Timer, heap[left] as Timer)) least = right;
      if (!isBefore(heap[least] as Timer, last)) break;
      heap[at] = heap[least] as Timer;
      at = least;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: Timer, b: Timer): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** Processes that end by themselves, each with a number that no other ever had. */
class CrashHost implements Host {
  readonly clock: Clock = new Clock();
  readonly after: Host["after"] = this.clock.after;
  /** How long the next process runs. */
  runMs: () => number = () => 0;
  readonly #table: Map<number, ProcessEntry> = new Map();
  #snapshot: readonly ProcessEntry[] | undefined;
  #pids = 100;

  spawn(request: SpawnRequest): Spawned {
    const pid = this.#pids++;
    const startTicks = 1_000 + this.clock.nowMs / 10;
    const entry = { pid, parent: 1, group: pid, session: pid, startTicks, state: "S" };
    this.#table.set(pid, { ...entry, command: "ping", mark: request.env[MARK_VARIABLE] });
    this.#snapshot = undefined;
    this.after(this.runMs(), () => {
      this.#table.delete(pid);
      this.#snapshot = undefined;
      request.onExit({ code: 1, signal: undefined });
      request.onOutputEnd();
    });
    return { pid, startTicks, releaseOutput() {} };
  }

  now(): number {
    return this.clock.nowMs;
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.clock.nowMs;
  }

  signalGroup(pgid: number): boolean {
    return this.#table.has(pgid);
  }

  signalProcess(): "gone" {
    return "gone";
  }

  descriptorsLeft(): number {
    return 1_000_000;
  }

  childrenOf(): number[] {
    return [];
  }

  memoryKills(): undefined {}

  readMark(pid: number): string | undefined {
    return this.#table.get(pid)?.mark;
  }

  readProcess(pid: number): ProcessEntry | undefined {
    return this.#table.get(pid);
  }

  /** Shared by all who look while nothing changes. */
  snapshot(): Promise<readonly ProcessEntry[]> {
    this.#snapshot ??= [...this.#table.values()];
    return Promise.resolve(this.#snapshot);
  }

  resources(): undefined {
    return undefined;
  }

  setPriority(): void {}
}

/** How long the programs of an instance run before they crash. */
export interface Habit {
  readonly runMs: readonly [least: number, most: number];
  /** After how long somebody starts one again that has failed. */
  readonly neglectMs: number;
}

/** One instance, and what must hold for it. */
class Looper {
  readonly supervisor: Supervisor;
  readonly #clock: Clock;
  readonly #habit: Habit;
  readonly #random: Random;
  restarts = 0;
  failures = 0;
  /** The last starts, by anybody. */
  #starts: number[] = [];
  #startMs = 0;
  #streak = 0;
  #pause: { readonly sinceMs: number; readonly ms: number } | undefined;
  #isEnding = false;
  /** Somebody will start it. */
  #cancelStart: () => void;

  constructor(host: CrashHost, number: number, habit: Habit, random: Random) {
    this.#clock = host.clock;
    this.#habit = habit;
    this.#random = random;
    let marks = 0;
    this.supervisor = new Supervisor({
      id: `0195fc7b-33e6-70e3-bee1-${number.toString(16).padStart(12, "0")}`,
      host,
      log,
      output: new Output(),
      settings: () => ({
        ...DEFAULT_SETTINGS,
        name: "ping",
        restart: this.#isEnding ? "no" : "always",
      }),
      program: () => ({ path: "/opt/ping", env: {} }),
      prepare: async () => {
        host.runMs = this.#runMs;
      },
      newMark: () => `run.${number}.${++marks}`,
      newCgroup: () => undefined,
      random: () => random.next() / 2 ** 32,
      events: {
        started: () => this.#started(),
        exited: () => {},
        gone: () => {},
        happened: (kind, detail) => this.#happened(kind, detail),
      },
    });
    this.#begin = () => {
      host.runMs = this.#runMs;
      this.#streak = 0;
      this.#pause = undefined;
      this.supervisor.start(undefined);
    };
    this.#cancelStart = host.after(random.int(0, 10_000), this.#begin);
  }

  /** Nobody starts it any more. */
  end(): void {
    this.#isEnding = true;
    this.#cancelStart();
    if (this.supervisor.state === "waiting") this.supervisor.discard();
  }

  readonly #begin: () => void;

  readonly #runMs = (): number => this.#random.int(...this.#habit.runMs);

  #started(): void {
    const { nowMs } = this.#clock;
    this.#startMs = nowMs;
    this.#starts = [...this.#starts.filter((at) => at > nowMs - RESTART_WINDOW_MS), nowMs];
    if (this.#starts.length > MAX_RESTARTS) throw new Error("It is started too often in a minute");
    if (this.#pause === undefined) return;
    this.restarts++;
    const { sinceMs, ms } = this.#pause;
    const late = nowMs - sinceMs - ms;
    if (late < -1 || late > SLACK_MS) throw new Error(`It is started ${late} ms after its pause`);
  }

  #happened(kind: HappeningKind, detail: Readonly<Record<string, unknown>>): void {
    const { nowMs } = this.#clock;
    if (kind === "failed") {
      this.failures++;
      const ms = this.#habit.neglectMs * (0.5 + this.#random.next() / 2 ** 32);
      this.#cancelStart = this.#clock.after(ms, this.#begin);
    }
    if (kind !== "restarting") return;
    if (nowMs - this.#startMs >= RESTART_RESET_MS) this.#streak = 0;
    const planned = Math.min(100 * 2 ** this.#streak++, RESTART_MAX_DELAY_MS);
    const ms = detail["in_ms"] as number;
    if (Math.abs(ms - planned) > planned * RESTART_JITTER + 1) {
      throw new Error(`A pause of ${ms} ms, where ${planned} ms are due`);
    }
    this.#pause = { sinceMs: nowMs, ms };
  }
}

/** What crashes in a world of its own. */
export class CrashWorld {
  readonly #host: CrashHost = new CrashHost();
  readonly #loopers: readonly Looper[];

  constructor(random: Random, habits: readonly Habit[]) {
    this.#loopers = habits.map((habit, i) => new Looper(this.#host, i, habit, random));
  }

  get timers(): number {
    return this.#host.clock.timers;
  }

  get restarts(): number {
    return this.#loopers.reduce((sum, { restarts }) => sum + restarts, 0);
  }

  get failures(): number {
    return this.#loopers.reduce((sum, { failures }) => sum + failures, 0);
  }

  run(ms: number): Promise<void> {
    return this.#host.clock.run(ms);
  }

  /** Lets everything come to an end: what waits is not started again, what runs runs out. */
  async end(): Promise<void> {
    for (const looper of this.#loopers) looper.end();
    await this.run(60_000);
  }
}
