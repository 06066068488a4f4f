// Carries out what `lifecycle.ts` decides for the process of one instance. Owns the process.
//
// A stop is answered when the process group is empty, not when the first process is gone.

import { OrchestratorError } from "./errors.ts";
import type { Host } from "./host.ts";
import { type Event, type State, step } from "./lifecycle.ts";
import { GROUP_POLL_MS, KILL_WAIT_MS, STOP_GRACE_MS } from "./limits.ts";
import type { TargetLog } from "./log.ts";
import { type Exit, formatExit, type InstanceId, NICE, type Priority } from "./model.ts";
import type { Output } from "./output.ts";

/** What happens to an instance's process, for those who hold something for it. */
export interface SupervisorEvents {
  /** A new process runs; it cannot have connected yet. */
  started(): void;
  /** The process has ended by itself or by a stop; its group may still be ending. */
  exited(): void;
}

const STOP_SPANS = "run:connection:handle_request:stop";

/** The process of one instance. */
export class Supervisor {
  readonly #id: InstanceId;
  readonly #path: string;
  readonly #env: Readonly<Record<string, string>>;
  readonly #host: Host;
  readonly #log: TargetLog;
  readonly #output: Output;
  readonly #events: SupervisorEvents;
  #state: State = "stopped";
  #pid: number | undefined;
  #exit: Exit | undefined;
  #hasExited = true;
  /** The last exit was asked for. */
  #wasStopped = false;
  #releaseOutput: () => void = () => {};
  #cancelTimer: () => void = () => {};
  #stop: PromiseWithResolvers<void> | undefined;

  constructor(options: {
    id: InstanceId;
    path: string;
    env: Readonly<Record<string, string>>;
    host: Host;
    log: TargetLog;
    output: Output;
    events: SupervisorEvents;
  }) {
    this.#id = options.id;
    this.#path = options.path;
    this.#env = options.env;
    this.#host = options.host;
    this.#log = options.log;
    this.#output = options.output;
    this.#events = options.events;
  }

  get state(): State {
    return this.#state;
  }

  /** The process that runs, or undefined. */
  get pid(): number | undefined {
    return this.#hasExited ? undefined : this.#pid;
  }

  /** How the last process ended, if one has. */
  get exit(): Exit | undefined {
    return this.#exit;
  }

  /**
   * Starts the program.
   * @throws `wrong_state` if it runs already, `cannot_run` with the system's reason
   */
  start(priority: Priority | undefined): void {
    const { state, action } = step(this.#state, "start");
    if (action !== "spawn") throw this.#refusal("start", action);
    let child: ReturnType<Host["spawn"]>;
    const output = this.#output.open();
    let stillOpen = 2; // the process, and its output
    try {
      child = this.#host.spawn({
        path: this.#path,
        env: this.#env,
        onExit: (exit) => {
          this.#exited(child.pid, exit);
          if (--stillOpen === 0) this.#explain(child.pid, output.lastWords());
        },
        onOutput: output.append,
        onOutputEnd: () => {
          output.end();
          if (--stillOpen === 0) this.#explain(child.pid, output.lastWords());
        },
      });
    } catch (error) {
      output.end();
      throw this.#cannot("start", error);
    }
    this.#pid = child.pid;
    this.#hasExited = false;
    this.#releaseOutput = child.releaseOutput;
    this.#state = state;
    this.#events.started();
    this.#log.info("run:start", "child started", { id: this.#id, pid: child.pid });
    if (priority !== undefined) this.#prioritise(child.pid, priority);
  }

  /**
   * Stops the process and everything in its group.
   * @throws `wrong_state` if it does not run, `stop_failed` naming the pids that are left
   */
  async stop(): Promise<void> {
    const { state, action } = step(this.#state, "stop");
    if (action === "interrupt") {
      this.#signal("SIGINT"); // may throw: then nothing has changed
      this.#state = state;
      this.#stop = Promise.withResolvers<void>();
      this.#cancelTimer = this.#host.after(STOP_GRACE_MS, () => this.#expired());
      if (this.#hasExited) this.#look();
    } else if (action !== "wait") throw this.#refusal("stop", action);
    await this.#stop?.promise;
  }

  /** Sends SIGKILL to the group at once, without an answer. For the end of the daemon. */
  kill(): void {
    if (this.#pid !== undefined && this.#state !== "stopped") {
      this.#host.signalGroup(this.#pid, "SIGKILL");
    }
  }

  /** Lets go of the output of processes that escaped with it. The instance is being removed. */
  release(): void {
    this.#releaseOutput();
  }

  #exited(pid: number, exit: Exit): void {
    if (pid !== this.#pid) return;
    this.#exit = exit;
    this.#hasExited = true;
    const wasStopping = this.#state === "stopping";
    this.#wasStopped = wasStopping;
    const fields = { id: this.#id, pid, status: formatExit(exit) };
    if (wasStopping) {
      this.#log.info(STOP_SPANS, "child stop exit status", {
        ...(exit.signal === undefined ? { code: exit.code } : { signal: exit.signal }),
        id: this.#id,
      });
    } else if (exit.code === 0) this.#log.info("run", "child exited", fields);
    else this.#log.warn("run", "child exited", fields);
    const action = this.#step("exit");
    this.#events.exited();
    if (action === "sweep" && this.#host.groupMembers(pid).length > 0) {
      this.#log.warn("run", "killing what the child left behind in its process group", fields);
      this.#host.signalGroup(pid, "SIGKILL");
    }
    if (wasStopping) this.#look();
  }

  /** A process that failed by itself may have said why; its output ends about when it does. */
  #explain(pid: number, lastWords: string | undefined): void {
    const hasFailed = this.#exit !== undefined && this.#exit.code !== 0;
    if (pid !== this.#pid || this.#state !== "stopped" || this.#wasStopped) return;
    if (!hasFailed || lastWords === undefined) return;
    this.#log.warn("run", "last line on standard error of the child that failed", {
      id: this.#id,
      pid,
      line: lastWords,
    });
  }

  /** While stopping: is anything of the group left? Looks again as long as there is. */
  #look(): void {
    if (this.#state !== "stopping" || !this.#hasExited) return;
    if (this.#host.groupMembers(this.#pid as number).length === 0) {
      this.#cancelTimer();
      this.#step("emptied");
      this.#stop?.resolve();
    } else this.#host.after(GROUP_POLL_MS, () => this.#look());
  }

  #expired(): void {
    if (this.#step("expired") !== "kill") return;
    const pid = this.#pid as number;
    this.#log.warn(STOP_SPANS, "child did not stop in time, killing its process group", {
      id: this.#id,
      pid,
      grace_ms: STOP_GRACE_MS,
    });
    this.#cancelTimer = this.#host.after(KILL_WAIT_MS, () => this.#stuck());
    this.#signal("SIGKILL");
  }

  /** @throws `permission_denied`: a program that has changed its user may be out of our reach */
  #signal(signal: "SIGINT" | "SIGKILL"): void {
    try {
      this.#host.signalGroup(this.#pid as number, signal);
    } catch (cause) {
      throw new OrchestratorError(
        "permission_denied",
        `Cannot stop instance ${JSON.stringify(this.#id)}: Cannot send ${signal} to its process group`,
        { cause },
      );
    }
  }

  #stuck(): void {
    const left = this.#host.groupMembers(this.#pid as number);
    if (this.#step("stuck") !== "report") return;
    const error = new OrchestratorError(
      "stop_failed",
      `Cannot stop instance ${JSON.stringify(this.#id)}: ` +
        `still there ${KILL_WAIT_MS} ms after SIGKILL: pid ${left.join(", ")}`,
    );
    if (this.#hasExited) this.#state = "stopped"; // its own process is gone: it may be started again
    this.#stop?.reject(error);
  }

  #step(event: Event): ReturnType<typeof step>["action"] {
    const { state, action } = step(this.#state, event);
    this.#state = state;
    return action;
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

  #refusal(verb: "start" | "stop", action: string): OrchestratorError {
    const pid = this.#pid ?? 0;
    const reason =
      action === "refuseRunning"
        ? `already running (pid ${pid})`
        : action === "refuseStopping"
          ? `it is stopping (pid ${pid})`
          : `it is not running${this.#exit === undefined ? "" : ` (last exit: ${formatExit(this.#exit)})`}`;
    return new OrchestratorError(
      "wrong_state",
      `Cannot ${verb} instance ${JSON.stringify(this.#id)}: ${reason}`,
    );
  }

  #cannot(verb: string, error: unknown): OrchestratorError {
    const subject = `Cannot ${verb} instance ${JSON.stringify(this.#id)}`;
    if (!(error instanceof OrchestratorError)) {
      return new OrchestratorError("internal", subject, { cause: error });
    }
    return new OrchestratorError(error.code, `${subject}: ${error.message}`, {
      cause: error.cause,
    });
  }
}
