// The end of one run that was asked for: its signal, the grace, then everything that is left.
//
// Decides nothing: whether the grace is over for good is the lifecycle's, what follows the end is the
// supervisor's. Looks again and again, until nothing is left or SIGKILL has not helped.

import { OrchestratorError } from "../errors.ts";
import type { Host } from "../host.ts";
import { GROUP_POLL_MS, KILL_WAIT_MS, STRAY_POLL_MS } from "../limits.ts";
import type { TargetLog } from "../log.ts";
import type { InstanceId } from "../model.ts";
import type { StopSignal } from "../settings.ts";
import { formatProcesses, type Tree } from "./tree.ts";

/** The log's spans of everything that belongs to a stop. */
export const STOP_SPANS = "run:connection:handle_request:stop";

export interface EndingOptions {
  readonly id: InstanceId;
  readonly run: { readonly pid: number; readonly tree: Tree; readonly hasExited: boolean };
  readonly host: Host;
  readonly log: TargetLog;
  /** The grace is over: is everything to be killed? */
  mayKill(): boolean;
  /**
   * Nothing is left, or what is left although it was killed; `killed` is what outlived its leader and
   * the grace, empty if nothing did. Called once.
   */
  onEnd(left: string, killed: string): void;
}

export class Ending {
  readonly #options: EndingOptions;
  #signal: StopSignal = "SIGKILL";
  #cancelGrace: () => void = () => {};
  #areStraysSignalled = false;
  #wasGroupEmpty = false;
  /** When all processes are looked through, whatever the group tells. */
  #nextLookMs = 0;
  /** What the last look has found. */
  #left = "";
  #killed = "";
  #isKilling = false;
  #isOver = false;

  constructor(options: EndingOptions) {
    this.#options = options;
  }

  /**
   * Asks the whole group to end, and gives it some time.
   * @throws `permission_denied`: a program that has changed its user may be out of our reach
   */
  begin(signal: StopSignal, graceMs: number): void {
    const { id, run, host } = this.#options;
    this.#signal = signal;
    if (!run.hasExited) run.tree.remember();
    try {
      // What is killed before anybody looks takes along the traces of what has left its group.
      run.tree.signal(signal === "SIGKILL" ? "SIGSTOP" : signal);
    } catch (cause) {
      throw new OrchestratorError("permission_denied", `Cannot stop instance "${id}"`, { cause });
    }
    try {
      if (signal !== "SIGKILL") run.tree.signal("SIGCONT"); // what is halted could not hear of it
    } catch {
      // Who could be signalled has ended at once; of the others the end will tell.
    }
    this.#cancelGrace = host.after(signal === "SIGKILL" ? 0 : graceMs, () =>
      this.#expired(graceMs),
    );
    if (run.hasExited) this.leaderExited();
  }

  /** The process that we started has ended; what it has started may not have. */
  leaderExited(): void {
    this.#nextLookMs = this.#options.host.now() + STRAY_POLL_MS;
    void this.#look();
  }

  /** Kills everything, and ends well or not. */
  finish(): void {
    this.#isKilling = true;
    void this.#kill();
  }

  /** Is anything left? Asks what has left the group to end, too. */
  async #look(): Promise<void> {
    const { id, run, host, log } = this.#options;
    if (this.#isKilling || this.#isOver) return;
    // To ask for the group is cheap, and tells when to look; but a zombie keeps it from being empty.
    const isGroupEmpty = run.tree.isGroupEmpty();
    const hasEmptied = isGroupEmpty && !this.#wasGroupEmpty;
    if (!hasEmptied && host.now() < this.#nextLookMs) {
      host.after(GROUP_POLL_MS, () => void this.#look());
      return;
    }
    this.#wasGroupEmpty = isGroupEmpty;
    this.#nextLookMs = host.now() + STRAY_POLL_MS;
    try {
      const left = await run.tree.left();
      if (this.#isKilling || this.#isOver) return;
      if (left.length === 0) return this.#end("");
      this.#left = formatProcesses(left);
      const strays = left.filter(({ group }) => group !== run.pid);
      if (strays.length > 0 && !this.#areStraysSignalled) {
        this.#areStraysSignalled = true;
        log.info(STOP_SPANS, "stopping what has left the child's process group", {
          id,
          left: formatProcesses(strays),
        });
        run.tree.signalEach(strays, this.#signal);
      }
    } catch (error) {
      log.error(STOP_SPANS, "cannot look for what has left the child's process group", {
        id,
        error: String(error),
      });
    }
    host.after(GROUP_POLL_MS, () => void this.#look());
  }

  #expired(graceMs: number): void {
    const { id, run, log, mayKill } = this.#options;
    if (this.#isOver || !mayKill()) return;
    if (this.#signal !== "SIGKILL") {
      this.#killed = this.#left;
      log.warn(STOP_SPANS, "child did not stop in time, killing everything of it", {
        id,
        pid: run.pid,
        grace_ms: graceMs,
        ...(this.#left === "" ? {} : { left: this.#left }),
      });
    }
    this.finish();
  }

  async #kill(): Promise<void> {
    const { run, host } = this.#options;
    let left: string;
    try {
      left = formatProcesses(await run.tree.kill(KILL_WAIT_MS));
    } catch (error) {
      left = `nobody can look (${String(error)})`;
    }
    // Its end is told by the kernel a moment after it is gone from the process table.
    if (left === "" && !run.hasExited) host.after(GROUP_POLL_MS, () => void this.#kill());
    else this.#end(left);
  }

  #end(left: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#cancelGrace();
    this.#options.onEnd(left, this.#killed);
  }
}
