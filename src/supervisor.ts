// Carries out what `lifecycle.ts` decides for the process of one instance. Owns its runs.
//
// A run is one process with everything that it starts. A stop is answered when nothing of the run is
// left; what a process leaves behind when it ends by itself is ended as well.

import { messageChain, OrchestratorError } from "./errors.ts";
import { Ending, STOP_SPANS } from "./supervisor/ending.ts";
import type { Host } from "./host.ts";
import type { ResourcesInfo } from "./protocol/info.ts";
import { type Action, type Event, type State, step } from "./lifecycle.ts";
import { KILL_WAIT_MS, MAX_RESTARTS, RESTART_WINDOW_MS, SWEEP_WAIT_MS } from "./limits.ts";
import type { TargetLog } from "./log.ts";
import {
  type Exit,
  exitFields,
  formatExit,
  type InstanceId,
  NICE,
  type Priority,
} from "./model.ts";
import { cannotStart, refusal, type Verb } from "./supervisor/refusal.ts";
import { Restarts, type Verdict } from "./supervisor/restart.ts";
import type { StoredEnd, StoredStatus } from "./store/records.ts";
import type { HappeningKind, SupervisorOptions } from "./supervisor/options.ts";
import { type Run, startRun } from "./supervisor/run.ts";
import { type EndedRun, Sweeps } from "./supervisor/sweep.ts";
import type { RunIdentity } from "./supervisor/tree.ts";

/** The process of one instance. */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #id: InstanceId;
  readonly #host: Host;
  readonly #log: TargetLog;
  readonly #restarts: Restarts;
  #state: State = "stopped";
  #changes = 0;
  #run: Run | undefined;
  /** Those that still run or print: somebody may hold the output of a former one open. */
  readonly #open: Set<Run> = new Set();
  #exit: Exit | undefined;
  /** The last exit was asked for. */
  #wasStopped = false;
  #priority: Priority | undefined;
  #restartCount = 0;
  #reason: string | undefined;
  #dueMs: number | undefined;
  #cancelTimer: () => void = () => {};
  #stop: PromiseWithResolvers<void> | undefined;
  #ending: Ending | undefined;
  /** A stop was asked for that could not be carried out: when it ends after all, that was it. */
  #isUnwanted = false;
  readonly #sweeps: Sweeps;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#id = options.id;
    this.#host = options.host;
    this.#log = options.log;
    this.#restarts = new Restarts(options.random);
    const { id, host, log } = options;
    this.#sweeps = new Sweeps({
      id,
      host,
      log,
      onStrays: ({ pid }) => this.#happened("swept", { pid }),
      onGone: (run) => this.#gone(run),
    });
  }

  get state(): State {
    return this.#state;
  }

  /** Counts whatever changes of what is told here. */
  get changes(): number {
    return this.#changes;
  }

  /** The process that runs, or undefined. */
  get pid(): number | undefined {
    return this.#run?.hasExited === false ? this.#run.pid : undefined;
  }

  /** The process that runs, or the one that ran last. */
  get identity(): RunIdentity | undefined {
    return this.#run;
  }

  /** Since when it runs, on the host's clock. */
  get startedMs(): number | undefined {
    return this.#run?.hasExited === false ? this.#run.startedMs : undefined;
  }

  /** When it is started again, on the host's clock. */
  get dueMs(): number | undefined {
    return this.#state === "waiting" ? this.#dueMs : undefined;
  }

  /** How the last process ended, if one has. */
  get exit(): Exit | undefined {
    return this.#exit;
  }

  /** The same to be remembered, with what led to it. */
  get last(): StoredEnd | null {
    if (this.#exit === undefined) return null;
    return { exit: this.#exit, wasStopped: this.#wasStopped, restarts: this.#restartCount };
  }

  /** Why it is not running, in words, if there is more to say than how it ended. */
  get reason(): string | undefined {
    return this.#state === "waiting" || this.#state === "failed" ? this.#reason : undefined;
  }

  /** How often it was started again since somebody started it. */
  get restartCount(): number {
    return this.#restartCount;
  }

  /** The priority of the last start. */
  get priority(): Priority | undefined {
    return this.#priority;
  }

  /** What everything that it has started uses now; undefined if it does not run. */
  async resources(): Promise<ResourcesInfo | undefined> {
    const run = this.#run;
    if (run === undefined || run.hasExited) return undefined;
    const { processes, tree } = await run.tree.resources();
    return {
      processes,
      threads: tree.threads,
      cpu_ms: tree.cpuMs,
      resident_bytes: tree.residentBytes,
      open_files: tree.openFiles ?? null,
    };
  }

  /** Of the state before the daemon was started: it has failed, and nobody has looked at it. */
  restore({ failed, last }: Pick<StoredStatus, "failed" | "last">): void {
    if (last !== null) {
      this.#exit = last.exit;
      this.#wasStopped = last.wasStopped;
      this.#restartCount = last.restarts;
      this.#changes++;
    }
    if (failed !== null) this.#fail(failed);
  }

  #fail(reason: string): void {
    this.#enter("failed");
    this.#reason = reason;
  }

  /** It ran before the daemon was started, and could not be started again: that counts as a restart. */
  restoreFailed(reason: string): void {
    if (this.#state !== "stopped") return; // somebody has started it meanwhile
    if (this.#options.settings().restart !== "no") return this.#tryAgain("start", reason);
    this.#fail(reason);
    this.#happened("failed", { reason });
  }

  /** @throws `wrong_state` if it cannot be started now */
  checkStart(): void {
    const { action } = step(this.#state, "start");
    if (action !== "spawn") throw this.#refusal("start", action);
  }

  /**
   * Starts the program; `isAgain` if nobody has asked, since it ran when the daemon of before ended:
   * then its restarts are counted on.
   * @throws `wrong_state` if it runs already, `cannot_run` with the system's reason
   */
  start(priority: Priority | undefined, isAgain: boolean = false): void {
    this.checkStart();
    const before = this.#priority;
    this.#priority = priority ?? this.#options.settings().priority ?? undefined;
    try {
      this.#spawn();
    } catch (error) {
      this.#priority = before;
      throw this.refuseStart(error);
    }
    this.#cancelTimer();
    this.#restarts.reset();
    if (!isAgain) this.#restartCount = 0;
    this.#began("start");
  }

  /** What is to be thrown when a program cannot be run that somebody has asked for; an event tells it. */
  refuseStart(error: unknown): OrchestratorError {
    const refused = cannotStart(this.#id, error);
    this.#happened("start_failed", { reason: messageChain(refused).slice(1).join(": ") });
    return refused;
  }

  /**
   * Stops the process and everything that it has started.
   * @throws `wrong_state` if it does not run, `stop_failed` naming what is left
   */
  async stop(): Promise<void> {
    const { state, action } = step(this.#state, "stop");
    const run = this.#run;
    if (action === "interrupt" && run !== undefined) {
      const { stopSignal, stopGraceMs } = this.#options.settings();
      const ending = this.#newEnding(run);
      ending.begin(stopSignal, stopGraceMs); // may throw: then nothing has changed
      this.#enter(state);
      this.#stop = Promise.withResolvers<void>();
      this.#happened("stopping", { signal: stopSignal, grace_ms: stopGraceMs, pid: run.pid });
    } else if (action === "kill") {
      this.#cancelTimer();
      this.#enter(state);
      if (run === undefined) {
        // It ran before the daemon was started, and this one could not start it: nothing is there.
        this.#step("emptied");
        this.#happened("stopped", {});
        return;
      }
      this.#stop = Promise.withResolvers<void>();
      this.#newEnding(run).finish();
    } else if (action !== "wait") throw this.#refusal("stop", action);
    await this.#stop?.promise;
  }

  /** @throws `wrong_state` if it runs; whoever asked removes it otherwise */
  checkRemove(): void {
    const { action } = step(this.#state, "remove");
    if (action !== "discard") throw this.#refusal("remove", action);
  }

  /** It is being removed: it is not started any more, and output that others hold open is let go. */
  discard(): void {
    if (this.#state === "waiting") this.#enter("stopped");
    this.#cancelTimer();
    for (const run of this.#open) run.releaseOutput();
  }

  /** Sends SIGKILL to all that is known of, at once, without an answer. For the end of the daemon. */
  kill(): void {
    if (this.#run === undefined || this.#state === "stopped") return;
    if (!this.#run.hasExited) this.#run.tree.remember();
    this.#run.tree.strike();
  }

  /**
   * Ends the process as if it had never been started: its start could not be remembered. Settles when
   * nothing of it is left, or nobody can end it.
   */
  async undoStart(): Promise<void> {
    if (this.#run !== undefined && ["running", "waiting"].includes(this.#state)) {
      this.#cancelTimer();
      this.#enter("stopping");
      this.#stop = Promise.withResolvers<void>();
      this.#newEnding(this.#run).finish();
    }
    await this.#stop?.promise.catch(() => {}); // nobody asked for this stop
  }

  /** Waits until nothing is left of what ended processes have left behind; hurries that up. */
  swept(): Promise<void> {
    return this.#sweeps.finish();
  }

  #newEnding(run: Run): Ending {
    this.#ending = new Ending({
      id: this.#id,
      run,
      host: this.#host,
      log: this.#log,
      mayKill: () => run === this.#run && this.#step("expired") === "kill",
      onEnd: (left, killed) => this.#ended(run, left, killed),
    });
    return this.#ending;
  }

  /** @throws `cannot_run` */
  #spawn(): void {
    this.#run = startRun(this.#options, {
      exited: (run, exit) => this.#exited(run, exit),
      closed: (run, lastWords) => {
        this.#open.delete(run);
        this.#explain(run, lastWords);
      },
    });
    this.#open.add(this.#run);
  }

  /** A process has been started. */
  #began(event: "start" | "due"): void {
    const run = this.#run as Run;
    const { pid } = run;
    this.#step(event);
    this.#reason = undefined;
    this.#isUnwanted = false;
    this.#options.events.started(run);
    this.#log.info(event === "start" ? "run:start" : "run", "child started", { id: this.#id, pid });
    if (this.#priority !== undefined) this.#prioritise(pid, this.#priority);
    this.#happened("started", event === "start" ? { pid } : { pid, restart: this.#restartCount });
  }

  #exited(run: Run, exit: Exit): void {
    run.hasExited = true;
    run.tree.leaderExited();
    if (run !== this.#run) return;
    this.#exit = exit;
    const ranMs = this.#host.now() - run.startedMs;
    const wasStopping = this.#state === "stopping";
    this.#wasStopped = wasStopping;
    const status = formatExit(exit);
    // Nobody has asked for this end: it may have been the kernel.
    const kills =
      exit.signal === "SIGKILL" && !wasStopping && !this.#isUnwanted
        ? this.#host.memoryKills()
        : undefined;
    const killed =
      kills === undefined
        ? {}
        : { memory_kills: kills.count, memory_kills_ms: Math.ceil(kills.withinMs) };
    const fields = { id: this.#id, pid: run.pid, status, ...killed };
    if (wasStopping) {
      this.#log.info(STOP_SPANS, "child stop exit status", { ...exitFields(exit), id: this.#id });
    } else if (exit.code === 0) this.#log.info("run", "child exited", fields);
    else this.#log.warn("run", "child exited", fields);
    const isWanted = !wasStopping && !this.#isUnwanted;
    const verdict: Verdict = isWanted ? this.#judge(exit, ranMs) : { kind: "ended" };
    const action = this.#step(verdict.kind);
    this.#options.events.exited();
    this.#happened("exited", {
      pid: run.pid,
      ...exitFields(exit),
      ran_ms: Math.round(ranMs),
      stopping: wasStopping,
      ...killed,
    });
    if (action === "look") this.#ending?.leaderExited();
    else {
      // With a pause, it is gone before the next start; without one, the next start must not wait.
      const pauseMs = verdict.kind === "crashed" ? verdict.delayMs : 0;
      const withinMs = pauseMs > 0 ? pauseMs / 2 : SWEEP_WAIT_MS;
      if (this.#sweeps.begin(run, withinMs)) this.#happened("swept", { pid: run.pid });
    }
    this.#conclude(verdict, status, `it ended with ${status} and is started again`);
  }

  #judge(exit: Exit, ranMs: number): Verdict {
    const { restart, restartDelayMs } = this.#options.settings();
    return this.#restarts.judge(restart, restartDelayMs, exit, ranMs, this.#host.now());
  }

  /** What follows a process that has ended by itself, or could not be started again. */
  #conclude(verdict: Verdict, status: string, reason: string): void {
    if (verdict.kind === "crashed") {
      this.#dueMs = this.#host.now() + verdict.delayMs;
      this.#reason = reason;
      this.#happened("restarting", {
        in_ms: Math.round(verdict.delayMs),
        restart: this.#restartCount + 1,
        after: status,
      });
      this.#cancelTimer = this.#host.after(verdict.delayMs, () => void this.#due());
    } else if (verdict.kind === "exhausted") {
      this.#reason = `${MAX_RESTARTS} starts in ${RESTART_WINDOW_MS / 1_000} s, last exit: ${status}`;
      const fields = { id: this.#id, reason: this.#reason };
      this.#log.error("run", "child failed: it is not started again", fields);
      this.#happened("failed", { reason: this.#reason });
    }
  }

  /** The pause is over. What the last run left behind goes first, unless no pause was asked for. */
  async #due(): Promise<void> {
    const before = this.#run;
    const isCurrent = (): boolean => this.#state === "waiting" && this.#run === before;
    if (this.#options.settings().restartDelayMs > 0) await this.#sweeps.finish();
    try {
      if (isCurrent()) await this.#options.prepare();
      if (!isCurrent()) return;
      this.#spawn();
    } catch (error) {
      if (!isCurrent()) return; // somebody has started, stopped or removed it meanwhile
      const isKnown = error instanceof OrchestratorError;
      const message = messageChain(isKnown ? error : cannotStart(this.#id, error)).join(": ");
      this.#restartCount++;
      this.#log.warn("run", "child could not be started again", { id: this.#id, error: message });
      this.#tryAgain("due", message);
      return;
    }
    this.#restartCount++;
    this.#began("due");
  }

  /** What was tried counts as a run that has ended at once. */
  #tryAgain(tried: "start" | "due", reason: string): void {
    this.#step(tried);
    const verdict = this.#judge({ code: undefined, signal: undefined }, 0);
    this.#step(verdict.kind);
    this.#conclude(verdict, reason, `it could not be started, and that is tried again: ${reason}`);
  }

  /** A process that failed by itself may have said why; its output ends about when it does. */
  #explain(run: Run, lastWords: string | undefined): void {
    const hasFailed = this.#exit !== undefined && this.#exit.code !== 0;
    if (run !== this.#run || this.#wasStopped || !hasFailed || lastWords === undefined) return;
    this.#log.warn("run", "last line on standard error of the child that failed", {
      id: this.#id,
      pid: run.pid,
      line: lastWords,
    });
  }

  /** A stop has ended, well or not. */
  #ended(run: Run, left: string, killed: string): void {
    if (this.#state !== "stopping" || run !== this.#run) return;
    this.#ending = undefined;
    if (left === "") {
      this.#step("emptied");
      this.#gone(run);
      this.#happened("stopped", { pid: run.pid, ...(killed === "" ? {} : { killed }) });
      this.#stop?.resolve();
      return;
    }
    this.#step(run.hasExited ? "strays" : "stuck");
    if (run.hasExited) this.#sweeps.tryAgain(run); // of one that has not, its exit will tell
    this.#isUnwanted = true;
    this.#happened("stop_failed", { left });
    this.#stop?.reject(
      new OrchestratorError(
        "stop_failed",
        `Cannot stop instance "${this.#id}": still there ${KILL_WAIT_MS} ms after SIGKILL: ${left}`,
      ),
    );
  }

  /** Nothing is left of a run; a sweep and a stop may both find that. */
  #gone(run: EndedRun): void {
    if (run.isGone) return;
    run.isGone = true;
    this.#sweeps.forget(run);
    run.tree.release();
    this.#options.events.gone(run);
  }

  #step(event: Event): ReturnType<typeof step>["action"] {
    const { state, action } = step(this.#state, event);
    this.#enter(state);
    return action;
  }

  /** Whatever else changes changes in the same turn. */
  #enter(state: State): void {
    this.#state = state;
    this.#changes++;
  }

  #happened(kind: HappeningKind, detail: Readonly<Record<string, unknown>>): void {
    this.#options.events.happened(kind, detail);
  }

  #prioritise(pid: number, priority: Priority): void {
    try {
      this.#host.setPriority(pid, NICE[priority]);
    } catch {
      this.#log.warn("run:start", "not permitted to set the priority, the child runs without it", {
        id: this.#id,
        priority,
        nice: NICE[priority],
      });
    }
  }

  #refusal(verb: Verb, action: Action): OrchestratorError {
    const { state, exit, reason } = this;
    return refusal(verb, action, { id: this.#id, pid: this.#run?.pid, state, exit, reason });
  }
}
