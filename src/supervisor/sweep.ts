// Ends what processes leave behind when they end by themselves, and waits until it is gone.
//
// Its group goes at once. What has left the group is looked for a little later, at full seconds of
// the clock, so that many exits share one look at all processes. What cannot be ended is tried again,
// so that whoever was told of it hears in the end that nothing is left.

import type { Host } from "../host.ts";
import { KILL_WAIT_MS, SWEEP_RETRY_MS, SWEEP_WAIT_MS } from "../limits.ts";
import type { TargetLog } from "../log.ts";
import type { InstanceId } from "../model.ts";
import { formatProcesses, type RunIdentity, type Tree } from "./tree.ts";

/** A run whose process has ended. */
export interface EndedRun extends RunIdentity {
  readonly tree: Tree;
  isGone: boolean;
}

/** The sweeps of one instance. */
export class Sweeps {
  readonly #options: SweepOptions;
  readonly #underWay: Map<EndedRun, { readonly done: Promise<void>; hurry(): void }> = new Map();

  /** What is left of them is tried again, unless this is called. */
  readonly #waiting: Map<EndedRun, () => void> = new Map();

  constructor(options: SweepOptions) {
    this.#options = options;
  }

  /** Begins to sweep, and is done some time after `withinMs`; returns whether the group held anything. */
  begin(run: EndedRun, withinMs: number): boolean {
    const { host } = this.#options;
    const isLeftBehind = !run.tree.isGroupEmpty();
    if (isLeftBehind) this.#killGroup(run);
    const { promise, resolve } = Promise.withResolvers<void>();
    let isAtWork = false;
    const work = async (): Promise<void> => {
      if (isAtWork) return;
      isAtWork = true;
      cancel();
      await this.#endAll(run, isLeftBehind);
      this.#underWay.delete(run);
      resolve();
    };
    const sharedMs = SWEEP_WAIT_MS - (host.now() % SWEEP_WAIT_MS);
    const cancel = host.after(Math.min(withinMs, sharedMs), () => void work());
    this.#underWay.set(run, { done: promise, hurry: () => void work() });
    return isLeftBehind;
  }

  /** Hurries up everything that is under way, and waits for it. */
  async finish(): Promise<void> {
    const sweeps = [...this.#underWay.values()];
    for (const sweep of sweeps) sweep.hurry();
    await Promise.all(sweeps.map(({ done }) => done));
  }

  /** Nobody waits for what is left of a run: tries from time to time, until nothing is. */
  tryAgain(run: EndedRun): void {
    if (run.isGone || this.#waiting.has(run)) return; // a sweep and a stop may both have failed
    const cancel = this.#options.host.after(SWEEP_RETRY_MS, () => void this.#retry(run));
    this.#waiting.set(run, cancel);
  }

  /** Nothing is left of a run. */
  forget(run: EndedRun): void {
    this.#waiting.get(run)?.();
    this.#waiting.delete(run);
  }

  async #retry(run: EndedRun): Promise<void> {
    this.#waiting.delete(run);
    if (run.isGone) return;
    try {
      if ((await run.tree.kill(0)).length === 0) {
        const { id, log, onGone } = this.#options;
        if (!run.isGone) log.info("run", "what could not be ended is gone", { id, pid: run.pid });
        return onGone(run);
      }
    } catch {
      // It was told when it failed first.
    }
    this.tryAgain(run);
  }

  #killGroup({ pid, tree }: EndedRun): void {
    const { id, log } = this.#options;
    log.warn("run", "killing what the child left behind in its process group", { id, pid });
    try {
      tree.signal("SIGKILL");
    } catch (error) {
      log.warn("run", "not permitted to signal it", { id, pid, error: String(error) });
    }
  }

  async #endAll(run: EndedRun, isTold: boolean): Promise<void> {
    const { id, log, onStrays, onGone } = this.#options;
    const { pid, tree } = run;
    try {
      const left = await tree.kill(KILL_WAIT_MS, (found) => {
        const strays = found.filter(({ group }) => group !== pid);
        if (strays.length === 0) return;
        log.warn("run", "killing what has left the child's process group", {
          id,
          pid,
          left: formatProcesses(strays),
        });
        if (!isTold) onStrays(run);
      });
      if (left.length === 0) return onGone(run);
      log.error("run", "cannot end what the child left behind", {
        id,
        pid,
        left: formatProcesses(left),
      });
    } catch (error) {
      log.error("run", "cannot look for what the child left behind", {
        id,
        pid,
        error: String(error),
      });
    }
    this.tryAgain(run);
  }
}

export interface SweepOptions {
  readonly id: InstanceId;
  readonly host: Host;
  readonly log: TargetLog;
  /** Something is being killed that has left the group, of which nothing was left. */
  onStrays(run: EndedRun): void;
  /** Nothing is left of a run. */
  onGone(run: EndedRun): void;
}
