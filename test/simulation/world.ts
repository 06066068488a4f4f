// One supervisor in a small system in memory, a model beside it, and everything that may happen.
//
// The world sees what the supervisor cannot: which process belongs to which run. Whatever it demands
// and does not find is thrown, with what happened before.

import { OrchestratorError } from "../../src/errors.ts";
import type { Spawned, SpawnRequest } from "../../src/host.ts";
import { HELD_NUMBER_MS, KILL_WAIT_MS, SWEEP_RETRY_MS } from "../../src/limits.ts";
import { Log, parseLogFilter } from "../../src/log.ts";
import type { Exit } from "../../src/model.ts";
import { Output } from "../../src/output.ts";
import { MARK_VARIABLE } from "../../src/host/processes.ts";
import { DEFAULT_SETTINGS, type InstanceSettings, STOP_SIGNALS } from "../../src/settings.ts";
import type { HappeningKind } from "../../src/supervisor/options.ts";
import { Supervisor } from "../../src/supervisor.ts";
import { FakeHost, type FakeProcess } from "../support/host.ts";
import type { Random } from "../support/random.ts";
import { Model } from "./model.ts";

/** What a stop may take beyond its grace and the time for SIGKILL to work: a few looks and pauses. */
const SLACK_MS = 250;

/** From the end of the last process to the answer: looks at all processes are this far apart. */
const NOTICE_MS = 200;

/** From the end of the last run until no timer is left: a sweep that is not needed any more may be due. */
const QUIET_MS = 1_100;

const log = new Log(
  parseLogFilter("off"),
  () => {},
  () => 0,
).target("supervisor");

const EXITS: readonly Partial<Exit>[] = [{ code: 0 }, { code: 1 }, { signal: "SIGSEGV" }];

/** What happened is kept, for a single seed. */
const IS_TRACED = process.env["TEST_SEED"] !== undefined;

/** One process that the supervisor started, with all that came from it. */
interface Run {
  readonly mark: string;
  readonly owner: Supervisor;
  readonly leader: FakeProcess;
  /** Those that are alive. */
  readonly members: Set<FakeProcess>;
  /** Those that have never left the session; its number may have gone to another one. */
  readonly session: WeakSet<FakeProcess>;
  readonly startedMs: number;
  hasExited: boolean;
  /** Whoever in its session began later may be somebody else, unless they are not alone. */
  heldTicks: number;
  /** Something of it was out of reach once: it may never be seen to be gone. */
  wasHeld: boolean;
}

/** What happens, as often as its number says. */
const WEIGHTS = {
  start: 12,
  undo: 1,
  stop: 8,
  remove: 2,
  exit: 8,
  crash: 12,
  fork: 12,
  hold: 2,
  release: 6,
  halt: 1,
  stranger: 4,
  breakSpawn: 3,
  change: 5,
  pass: 20,
  settle: 4,
  sweep: 1,
  resources: 2,
} as const;

const ACTIONS = (Object.keys(WEIGHTS) as (keyof typeof WEIGHTS)[]).flatMap((name) =>
  Array.from({ length: WEIGHTS[name] }, () => name),
);

/** What somebody asks for; in some worlds nobody asks for much. */
const WISHES: ReadonlySet<string> = new Set(["start", "stop", "undo", "remove", "change"]);

/** A host that tells the world of every start, exit and end before the supervisor hears of it. */
class WatchedHost extends FakeHost {
  onStart: () => void = () => {};
  onTold: (request: SpawnRequest, exit: Exit) => void = () => {};
  onEnd: (process: FakeProcess) => void = () => {};

  override spawn(request: SpawnRequest): Spawned {
    this.onStart();
    return super.spawn({ ...request, onExit: (exit) => this.onTold(request, exit) });
  }

  override end(process: FakeProcess, exit: Exit): void {
    if (process.isAlive) this.onEnd(process);
    super.end(process, exit);
  }
}

export class World {
  readonly host: WatchedHost = new WatchedHost();
  readonly #random: Random;
  #model: Model = new Model();
  readonly #isCalm: boolean;
  /** How likely a program ends as soon as it is started. */
  readonly #crashes: number;
  #supervisor: Supervisor;
  #settings: InstanceSettings = { ...DEFAULT_SETTINGS, name: "ping" };
  #marks = 0;
  /** Those whose end has not been told. */
  readonly #runs: Run[] = [];
  #last: Run | undefined;
  /** Everything alive that came from a run. */
  readonly #runOf: Map<FakeProcess, Run> = new Map();
  #strangers: FakeProcess[] = [];
  /** Somebody asks for a start just now. */
  #isAsked = false;
  #unanswered = 0;
  /** When the current stop began, and when it sends SIGKILL to everything. */
  #stopMs = 0;
  #killMs = 0;
  #lastEndMs = 0;
  /** Without a run, no timer is left from then on. */
  #quietMs = 0;
  /** Lost its parent to a SIGKILL that was to end both. */
  readonly #orphaned: Set<FakeProcess> = new Set();
  readonly #trace: string[] = [];
  #fault: Error | undefined;

  constructor(random: Random) {
    this.#random = random;
    this.#isCalm = random.chance(0.4);
    this.#crashes = random.pick([0, 0.1, 0.9]);
    const { host } = this;
    host.pidRestMs = 250;
    host.exitDelayMs = random.pick([0, 0, 1, 7]);
    host.snapshotMs = random.pick([0, 0, 1, 6]);
    host.onStart = () => this.#starting();
    host.onSpawn = (process) => this.#born(process);
    host.onTold = (request, exit) => this.#told(request, exit);
    host.onEnd = (process) => this.#ending(process);
    this.#supervisor = this.#supervise();
  }

  /** Does something at random. @throws if a promise is broken */
  async step(): Promise<void> {
    const { host } = this;
    const { pid } = this.#last?.leader ?? {};
    // Numbers are used again soon, above all that of a leader.
    host.nextPid = this.#random.chance(0.2) && pid !== undefined ? pid : this.#random.int(100, 160);
    const action = this.#random.pick(ACTIONS);
    if (this.#isCalm && WISHES.has(action) && this.#random.chance(0.9)) return;
    const done = this[action]();
    if (done !== undefined) await done;
    this.#check();
  }

  /** Lets everything go its way and demands that it comes to rest. */
  async rest(): Promise<void> {
    this.#note("rest");
    this.host.fault = undefined;
    for (const process of this.host.table) this.#release(process);
    this.#settings = { ...this.#settings, restart: "no" };
    await this.pass(KILL_WAIT_MS + 1_000);
    if (["running", "waiting"].includes(this.#model.state)) this.stop();
    await this.pass(this.#settings.stopGraceMs + 2 * KILL_WAIT_MS + 2_000);
    await this.pass(2 * SWEEP_RETRY_MS); // what could not be ended before it was let go
    this.#demand(!["running", "waiting", "stopping"].includes(this.#model.state), "is at rest");
    this.#demand(this.host.timers === 0, "no timer is left", this.host.timers);
    this.#demand(this.#unanswered === 0, "every stop is answered", this.#unanswered);
    const [untold] = this.#runs.filter(({ wasHeld }) => !wasHeld);
    this.#demand(untold === undefined, "the end of every run is told", untold?.leader.pid);
    this.#check();
  }

  // What may happen.

  start(): void {
    const { state } = this.#model;
    const isAllowed = state !== "running" && state !== "stopping";
    const error = this.#try(() => this.#supervisor.start(undefined));
    this.#note("start", error?.message);
    if (!isAllowed) {
      const reason = state === "running" ? "already running" : "it is stopping";
      this.#demand(error?.message.includes(reason) === true, `is refused: ${reason}`, error);
    } else if (this.host.fault !== undefined) {
      this.#demand(error?.code === "cannot_run", "is refused by the system", error);
    } else {
      this.#demand(error === undefined, "is started", error);
      this.#model.started();
    }
  }

  /** The start cannot be remembered, which is found out some time later. */
  undo(): void {
    this.#supervisor.undoStart();
    this.#note("undo");
    if (!["running", "waiting"].includes(this.#model.state)) return;
    this.#model.state = "stopping";
    this.#stopMs = this.#killMs = this.host.now();
  }

  stop(): void {
    const { state } = this.#model;
    const nowMs = this.host.now();
    const isDenied = state === "running" && this.#isOutOfReach();
    const { stopSignal, stopGraceMs } = this.#settings;
    if (state === "running") this.#killMs = nowMs + (stopSignal === "SIGKILL" ? 0 : stopGraceMs);
    if (state === "waiting") this.#killMs = nowMs;
    this.#note("stop", stopSignal, stopGraceMs);
    const isAllowed = ["running", "waiting", "stopping"].includes(state) && !isDenied;
    if (isAllowed) this.#model.state = "stopping";
    if (state !== "stopping") this.#stopMs = nowMs;
    this.#unanswered++;
    this.#supervisor.stop().then(
      () => {
        this.#unanswered--;
        this.#demand(isAllowed, "a stop of what does not run is refused");
      },
      (error: OrchestratorError) => {
        this.#unanswered--;
        const code = isAllowed ? "stop_failed" : isDenied ? "permission_denied" : "wrong_state";
        this.#demand(error.code === code, `a stop fails with ${code}`, error);
      },
    );
  }

  remove(): void {
    const { state } = this.#model;
    const error = this.#try(() => this.#supervisor.checkRemove());
    this.#note("remove", error?.message);
    const isRefused = state === "running" || state === "stopping";
    this.#demand((error !== undefined) === isRefused, "is removed unless it runs", error);
    if (isRefused) return;
    this.#supervisor.discard();
    this.#demand(this.#supervisor.state !== "waiting", "is not started again");
    this.#supervisor = this.#supervise(); // the same id is added again at once
    this.#model = new Model();
  }

  /** A process of ours ends by itself. */
  exit(): void {
    const process = this.#anyone();
    if (process === undefined || process.state === "T" || process.isStuck) return;
    const exit = this.#random.pick(EXITS);
    this.#note("exit", process.pid, exit.code, exit.signal);
    process.exit(exit);
  }

  /** The process that was started last ends by itself. */
  crash(): void {
    const leader = this.#runs.at(-1)?.leader;
    if (leader?.state !== "S" || leader.isStuck) return;
    const exit = this.#random.pick(EXITS);
    this.#note("exit", leader.pid, exit.code, exit.signal);
    leader.exit(exit);
  }

  fork(): void {
    const parent = this.#anyone();
    if (parent === undefined || parent.state === "T" || parent.isStuck) return;
    if (this.#members().length > 12) return;
    const [session, clears] = [this.#random.chance(0.4), this.#random.chance(0.3)];
    const options = { session, ...(clears ? { mark: null } : {}) };
    const child = parent.fork({ ...options, closesOutput: this.#random.chance(0.3) });
    this.#note("fork", parent.pid, child.pid, session ? "session" : "", clears ? "clear" : "");
    if (this.#random.chance(0.3)) this.#behave(child);
    const run = this.#runOf.get(parent) as Run;
    run.members.add(child);
    if (run.session.has(parent) && !session) run.session.add(child);
    this.#runOf.set(child, run);
  }

  /** A process cannot be ended for a while, as one that waits for a disk, or has changed its user. */
  hold(): void {
    const process = this.#anyone();
    if (process === undefined || !this.#random.chance(0.5)) return;
    if (this.#random.chance(0.7)) process.isStuck = true;
    else process.isForeign = true;
    (this.#runOf.get(process) as Run).wasHeld = true;
    this.#note("hold", process.pid);
  }

  release(): void {
    const held = this.#members().filter(({ isStuck, isForeign }) => isStuck || isForeign);
    if (held.length > 0) this.#release(this.#random.pick(held));
  }

  /** A process stands still, without our doing. */
  halt(): void {
    const process = this.#anyone();
    if (process !== undefined) process.state = "T";
  }

  /** Somebody else gets a number that one of ours may have had. */
  stranger(): void {
    const leader = this.host.stranger();
    const child = leader.fork();
    this.#strangers.push(leader, child);
    this.#note("stranger", leader.pid, child.pid);
    if (this.#random.chance(0.5)) leader.exit(); // its number stays with the session
    if (this.#strangers.length > 8) {
      for (const process of this.#strangers) process.exit();
      this.#strangers = [];
    }
  }

  breakSpawn(): void {
    const fault = new OrchestratorError("cannot_run", 'Cannot run "/opt/ping"');
    this.host.fault = this.#random.chance(0.3) ? fault : undefined;
    this.#note("fault", this.host.fault !== undefined);
  }

  change(): void {
    const random = this.#random;
    this.#settings = {
      ...this.#settings,
      restart: random.pick(["no", "on-failure", "always"] as const),
      restartDelayMs: random.pick([0, 1, 10, 100, 100, 3_000, 30_000]),
      stopSignal: random.pick(STOP_SIGNALS),
      stopGraceMs: random.pick([0, 1, 50, 400, 2_000]),
    };
    const { restart, restartDelayMs } = this.#settings;
    this.#note("change", restart, restartDelayMs);
  }

  async pass(ms: number = this.#random.size(0, 3_000)): Promise<void> {
    this.#note("pass", ms);
    await this.host.run(ms);
  }

  async settle(): Promise<void> {
    await this.host.settle();
  }

  async sweep(): Promise<void> {
    if (!this.#random.chance(0.3)) return;
    this.#note("sweep");
    let isSwept = false;
    void this.#supervisor.swept().then(() => (isSwept = true));
    await this.host.run(KILL_WAIT_MS + SLACK_MS);
    this.#demand(isSwept, "is swept in time");
  }

  /** Somebody looks what the instance uses, and what belongs to it is seen. */
  resources(): void {
    void this.#supervisor.resources();
  }

  // What the world sees.

  #supervise(): Supervisor {
    const supervisor: Supervisor = new Supervisor({
      id: "0195fc7b-33e6-70e3-bee1-ac515185fac7",
      host: this.host,
      log,
      output: new Output(),
      settings: () => this.#settings,
      program: () => ({ path: "/opt/ping", env: {} }),
      prepare: () => Promise.resolve(),
      newMark: () => `run.${++this.#marks}`,
      newCgroup: () => undefined,
      random: () => this.#random.next() / 2 ** 32,
      events: {
        started: () => {},
        exited: () => {},
        gone: ({ mark }) => this.#gone(mark),
        happened: (kind) => {
          if (supervisor === this.#supervisor) this.#happened(kind);
        },
      },
    });
    return supervisor;
  }

  /** The supervisor starts a program, or tries to: because it was asked to, or after a pause. */
  #starting(): void {
    if (this.#isAsked) return;
    const { host } = this;
    const model = this.#model;
    const nowMs = host.now();
    this.#note("restart");
    this.#demand(model.state === "waiting", "is restarted only while it waits", model.state);
    this.#demand(nowMs >= model.dueMs, "the pause is over", nowMs - model.dueMs);
    const latestMs = this.#isHeld()
      ? model.dueMs + KILL_WAIT_MS + SLACK_MS
      : Math.max(model.dueMs, this.#lastEndMs) + NOTICE_MS;
    this.#demand(nowMs <= latestMs, "is restarted in time");
    const left = this.#runs.filter((run) => run.owner === this.#supervisor && !run.wasHeld);
    const isClean = this.#settings.restartDelayMs === 0 || left.every(isEmptied);
    this.#demand(isClean, "nothing of the runs before is left");
    model.restarted(host.fault === undefined, this.#settings, nowMs);
  }

  #born(process: FakeProcess): void {
    this.#note("born", process.pid, process.mark);
    const others = this.#runs.filter(({ leader }) => leader.isAlive);
    this.#demand(others.length === 0, "one leader at a time", others[0]?.leader.pid);
    const { mark } = process;
    const run: Run = {
      mark: mark as string,
      owner: this.#supervisor,
      leader: process,
      members: new Set([process]),
      session: new WeakSet([process]),
      startedMs: this.host.now(),
      hasExited: false,
      heldTicks: Number.POSITIVE_INFINITY,
      wasHeld: false,
    };
    this.#runs.push(run);
    this.#last = run;
    this.#runOf.set(process, run);
    this.#behave(process);
    if (this.#random.chance(this.#crashes)) process.exit(this.#random.pick(EXITS));
  }

  /** The kernel tells of an exit: the model first, then the supervisor, and they agree. */
  #told(request: SpawnRequest, exit: Exit): void {
    const mark = request.env[MARK_VARIABLE] as string;
    const run = this.#runs.find((other) => other.mark === mark) as Run;
    run.hasExited = true;
    run.heldTicks = this.host.ticks() + HELD_NUMBER_MS / 10;
    const isCurrent = run.owner === this.#supervisor && run === this.#last;
    const nowMs = this.host.now();
    this.#note("told", run.leader.pid);
    if (isCurrent) {
      this.#model.exited(this.#settings, exit.code !== 0, nowMs - run.startedMs, nowMs);
    }
    request.onExit(exit);
    this.#agree();
  }

  #happened(kind: HappeningKind): void {
    const { state, plannedMs } = this.#model;
    const nowMs = this.host.now();
    const run = this.#last as Run;
    this.#note("happened", kind);
    if (kind === "restarting") {
      const delayMs = (this.#supervisor.dueMs as number) - nowMs;
      const isFit = delayMs >= plannedMs * 0.75 && delayMs <= plannedMs * 1.25;
      this.#demand(state === "waiting" && isFit, `a pause of about ${plannedMs} ms`, delayMs);
      this.#model.waits(delayMs, nowMs);
    } else if (kind === "failed") this.#demand(state === "failed", "has not failed");
    else if (kind === "stopped") {
      this.#demand(state === "stopping", "nobody stops it", state);
      this.#demand(isEmptied(run), "a stop that succeeds leaves nothing");
      const hidden = [...this.#orphaned].find((process) => process.isAlive);
      this.#demand(hidden === undefined, "what lost its parent to SIGKILL was seen", hidden?.pid);
      const isLate = nowMs > Math.max(this.#stopMs, this.#lastEndMs) + NOTICE_MS;
      this.#demand(!isLate, "is answered soon after the last end", nowMs - this.#lastEndMs);
      this.#model.state = "stopped";
      this.#quietMs = nowMs + QUIET_MS;
    } else if (kind === "stop_failed") {
      this.#demand(state === "stopping", "nobody stops it", state);
      this.#demand(nowMs >= this.#killMs + KILL_WAIT_MS, "SIGKILL has its time");
      const isLeft = run.members.size > 0 || nowMs - this.#lastEndMs < NOTICE_MS;
      this.#demand(isLeft, "a stop fails only if something is left");
      this.#model.state = run.hasExited ? "stopped" : "running";
      this.#model.isUnwanted = true;
    }
  }

  #gone(mark: string): void {
    this.#note("gone", mark);
    const at = this.#runs.findIndex((run) => run.mark === mark);
    this.#demand(at >= 0, "the end of a run is told once", mark);
    const [run] = this.#runs.splice(at, at < 0 ? 0 : 1);
    this.#quietMs = this.host.now() + QUIET_MS;
    if (run !== undefined) this.#demand(isEmptied(run), "a run that is told to be gone is gone");
  }

  #ending(process: FakeProcess): void {
    const run = this.#runOf.get(process);
    if (run === undefined) return;
    this.#note("end", process.pid);
    this.#lastEndMs = this.host.now();
    run.members.delete(process);
    this.#runOf.delete(process);
    const isStopped = run === this.#last && !run.wasHeld && this.#model.state === "stopping";
    if (!isStopped || process.signals.at(-1) !== "SIGKILL") return;
    const found = findable(run, [process]);
    const now = findable(run);
    for (const other of found) if (!now.has(other)) this.#orphaned.add(other);
  }

  #behave(process: FakeProcess): void {
    const random = this.#random;
    const obeyed = random.pick([[], ["SIGINT"], ["SIGTERM", "SIGHUP"], STOP_SIGNALS]);
    const code = random.pick([undefined, 0, 1]);
    process.react = (signal) => {
      if (!(obeyed as readonly string[]).includes(signal)) return undefined;
      return code === undefined ? { signal } : { code };
    };
  }

  #release(process: FakeProcess): void {
    this.#note("release", process.pid);
    process.isStuck = false;
    process.isForeign = false;
    if (process.signals.includes("SIGKILL")) process.exit({ signal: "SIGKILL" });
  }

  #anyone(): FakeProcess | undefined {
    const all = this.#members();
    return all.length === 0 ? undefined : this.#random.pick(all);
  }

  /** Something of a run cannot be ended. */
  #isHeld(): boolean {
    return this.#members().some(({ isStuck, isForeign }) => isStuck || isForeign);
  }

  /** Everything alive that came from a run. */
  #members(): FakeProcess[] {
    return [...this.#runOf.keys()];
  }

  /** Nobody in its group may be signalled by us. */
  #isOutOfReach(): boolean {
    const { pid } = (this.#last as Run).leader;
    return this.host.table.every(({ group, isForeign }) => group !== pid || isForeign);
  }

  #try(action: () => void): OrchestratorError | undefined {
    this.#isAsked = true;
    try {
      action();
    } catch (error) {
      return error as OrchestratorError;
    } finally {
      this.#isAsked = false;
    }
    return undefined;
  }

  #agree(): void {
    const { state } = this.#supervisor;
    this.#demand(state === this.#model.state, `the state is ${this.#model.state}`, state);
  }

  #check(): void {
    this.#agree();
    const nowMs = this.host.now();
    const { state, dueMs } = this.#model;
    const isOverdue = state === "stopping" && nowMs > this.#killMs + KILL_WAIT_MS + SLACK_MS;
    this.#demand(!isOverdue, "a stop is answered in time", nowMs - this.#killMs);
    const isForgotten = state === "waiting" && nowMs > dueMs + KILL_WAIT_MS + SLACK_MS;
    this.#demand(!isForgotten, "a restart comes in time", nowMs - dueMs);
    const isQuiet =
      !["waiting", "stopping"].includes(state) &&
      this.#runs.length === 0 &&
      nowMs > Math.max(this.#quietMs, this.#lastEndMs + NOTICE_MS);
    this.#demand(!isQuiet || this.host.timers === 0, "no timer is left", this.host.timers);
    for (const { signals, pid } of this.#strangers) {
      this.#demand(signals.length === 0, "nobody else is signalled", pid);
    }
    if (this.#fault !== undefined) throw this.#fault;
  }

  /** Remembers what is not so; thrown later, since a supervisor may catch what its listeners throw. */
  #demand(isSo: boolean, what: string, found?: unknown): void {
    if (isSo || this.#fault !== undefined) return;
    const trace = this.#trace.slice(-3000).join("\n");
    this.#fault = new Error(`Expected that ${what}; there is ${String(found)}\n${trace}`);
  }

  #note(...words: unknown[]): void {
    if (IS_TRACED) this.#trace.push(`${this.host.now()} ${this.#model.state}: ${words.join(" ")}`);
  }
}

/** Everything alive of a run that can be told to belong to it, by the rules of docs/supervision.md. */
function findable(run: Run, besides: readonly FakeProcess[] = []): Set<FakeProcess> {
  const all = [...run.members, ...besides];
  const session = all.filter((one) => run.session.has(one));
  // When all who held the number of the session are gone, it may be anybody's.
  const isHeld = session.some(({ startTicks }) => startTicks <= run.heldTicks);
  const found = new Set(all.filter(({ mark }) => mark === run.mark));
  if (isHeld) for (const process of session) found.add(process);
  for (let size = -1; size !== found.size;) {
    size = found.size;
    for (const process of all) {
      const isOf = (other: FakeProcess): boolean =>
        process.parent === other.pid || process.session === other.pid;
      if (!found.has(process) && [...found].some(isOf)) found.add(process);
    }
  }
  for (const process of besides) found.delete(process);
  return found;
}

function isEmptied(run: Run): boolean {
  return run.members.size === 0 || findable(run).size === 0;
}
