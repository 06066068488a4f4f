// A door: the guard, a small shell that outlives the daemon and ends what the daemon started.
//
// It learns of the daemon's death, whatever the kind, by the end of its input; `guard.sh` is what it
// runs. Here it is started, told of sessions, replaced when it dies, and closed.

import SCRIPT from "./guard.sh" with { type: "text" };
import {
  GUARD_LASTED_MS,
  GUARD_RETRY_MAX_MS,
  GUARD_RETRY_MS,
  MAX_GUARD_BACKLOG_BYTES,
} from "../limits.ts";
import type { TargetLog } from "../log.ts";

/** What a guard is started with. */
export interface GuardOptions {
  /** The part of the marks of this daemon's runs before the first dot: letters, digits, hyphens. */
  readonly runId: string;
  /** The folder of the control groups of all runs. */
  readonly cgroup?: string | undefined;
  readonly log: TargetLog;
  /** Where `sh` and `grep` are found. */
  readonly searchPath?: string | undefined;
}

/** The guard of this daemon. One that dies is replaced, and the next is told everything again. */
export class Guard {
  readonly #options: GuardOptions;
  /** Pid → start time of what is to be ended. */
  readonly #groups: Map<number, number> = new Map();
  #child: Bun.Subprocess<"pipe", "ignore", "ignore"> | undefined;
  #unsent = "";
  #unreadBytes = 0;
  #retryMs: number = GUARD_RETRY_MS;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #isClosed = false;

  constructor(options: GuardOptions) {
    this.#options = options;
    this.#start();
  }

  /** Undefined while there is none. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** From now on the session of this process ends with the daemon. */
  add(pid: number, startTicks: number): void {
    this.#forget(pid); // its number went from one of ours to another
    this.#groups.set(pid, startTicks);
    this.#send(`+ ${pid} ${startTicks}\n`);
  }

  /** Nothing is left of it: its number may go to somebody else, or has gone to another of ours. */
  remove(pid: number, startTicks: number): void {
    if (this.#groups.get(pid) === startTicks) this.#forget(pid);
  }

  /** Ends the guard, which ends nobody then. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#retry);
    this.#send("q\n");
    this.#flush();
    this.#hangUp();
  }

  #forget(pid: number): void {
    if (this.#groups.delete(pid)) this.#send(`- ${pid}\n`);
  }

  #start(): void {
    const { runId, cgroup, log, searchPath } = this.#options;
    const startedMs = performance.now();
    try {
      const child = Bun.spawn({
        // From the environment, so that lists of processes show a name and not a program.
        cmd: ["/bin/sh", "-c", 'eval "$GUARD"', "veecle-orchestrator-guard", runId, cgroup ?? ""],
        cwd: "/",
        env: { GUARD: SCRIPT, PATH: [searchPath, "/usr/bin:/bin"].filter(Boolean).join(":") },
        stdin: "pipe",
        stdout: "ignore",
        stderr: "ignore",
        detached: true, // neither the daemon's terminal nor its process group is the guard's
        onExit: (_child, code, signal) => {
          this.#hangUp();
          if (this.#isClosed) return;
          log.warn("run", "the guard has ended, starting another one", {
            status: signal === null ? `code ${code}` : `signal ${String(signal)}`,
          });
          this.#startNext(performance.now() - startedMs);
        },
      });
      child.unref();
      this.#child = child;
    } catch (error) {
      log.warn("run", "cannot start the guard: instances would outlive a daemon that is killed", {
        reason: error instanceof Error ? error.message : String(error),
      });
      this.#startNext(0);
      return;
    }
    this.#unsent = "";
    for (const [pid, startTicks] of this.#groups) this.#send(`+ ${pid} ${startTicks}\n`);
  }

  /** At once after one that lasted; one that dies again and again must not keep us busy. */
  #startNext(lastedMs: number): void {
    if (lastedMs > GUARD_LASTED_MS) {
      this.#retryMs = GUARD_RETRY_MS;
      this.#start();
      return;
    }
    this.#retry = setTimeout(() => this.#start(), this.#retryMs);
    this.#retry.unref();
    this.#retryMs = Math.min(this.#retryMs * 2, GUARD_RETRY_MAX_MS);
  }

  /** With whatever else is to be told in this turn. */
  #send(text: string): void {
    if (this.#child === undefined) return; // the next one is told everything
    if (this.#unsent === "") setImmediate(() => this.#flush());
    this.#unsent += text;
  }

  /** Never waits; a guard that does not read is replaced. */
  #flush(): void {
    const [child, text] = [this.#child, this.#unsent];
    this.#unsent = "";
    if (child === undefined || text === "") return;
    try {
      child.stdin.write(text);
      const flushed: unknown = child.stdin.flush();
      if (!(flushed instanceof Promise)) return;
      this.#unreadBytes += text.length;
      flushed.then(
        () => (this.#unreadBytes = 0),
        () => {},
      );
      if (this.#unreadBytes > MAX_GUARD_BACKLOG_BYTES) child.kill("SIGKILL");
    } catch {
      // It has ended; we are about to be told.
    }
  }

  #hangUp(): void {
    const child = this.#child;
    this.#child = undefined;
    this.#unreadBytes = 0;
    try {
      const ended: unknown = child?.stdin.end();
      if (ended instanceof Promise) ended.catch(() => {});
    } catch {
      // It was gone before us.
    }
  }
}
