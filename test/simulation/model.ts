// What becomes of the process of one instance, by docs/supervision.md and in plain words: no table, no
// promises, nothing of src/. A simulation tells it what happens and compares.

/** What of the settings of an instance matters here. */
export interface ModelSettings {
  restart: "no" | "on-failure" | "always";
  restartDelayMs: number;
}

export class Model {
  state: "stopped" | "running" | "stopping" | "waiting" | "failed" = "stopped";
  /** While it waits: when it is started again, and how long the pause is without chance. */
  dueMs = 0;
  plannedMs = 0;
  restarts = 0;
  /** A stop has failed: when the process ends after all, that was it. */
  isUnwanted = false;
  /** Restarts in a row without a good run in between. */
  #row = 0;
  /** When the runs of this row ended, if chance had not moved them. */
  #ends: number[] = [];
  #movedMs = 0;

  /** Somebody started it. */
  started(): void {
    this.state = "running";
    this.restarts = 0;
    this.isUnwanted = false;
    this.#forget();
  }

  /** The process has ended after `ranMs`; `hasFailed` says whether by a signal or with another code than 0. */
  exited(settings: ModelSettings, hasFailed: boolean, ranMs: number, nowMs: number): void {
    if (this.state !== "running") return;
    if (this.isUnwanted) this.state = "stopped";
    else this.#follow(settings, hasFailed, ranMs, nowMs);
  }

  /** It was started again after a pause, or that was tried. */
  restarted(hasSucceeded: boolean, settings: ModelSettings, nowMs: number): void {
    this.restarts++;
    if (hasSucceeded) this.state = "running";
    else this.#follow(settings, true, 0, nowMs);
  }

  /** The pause that was chosen, which is known only now. */
  waits(delayMs: number, nowMs: number): void {
    this.dueMs = nowMs + delayMs;
    this.#movedMs += delayMs - this.plannedMs;
  }

  #follow(settings: ModelSettings, hasFailed: boolean, ranMs: number, nowMs: number): void {
    if (settings.restart === "no" || (settings.restart === "on-failure" && !hasFailed)) {
      this.state = "stopped";
      return;
    }
    if (ranMs >= 10_000) this.#forget();
    const endMs = nowMs - this.#movedMs;
    this.#ends = [...this.#ends.filter((earlier) => endMs - earlier < 60_000), endMs];
    if (this.#ends.length === 10) {
      this.state = "failed";
      this.#forget();
      return;
    }
    this.state = "waiting";
    this.plannedMs = Math.min(30_000, settings.restartDelayMs * 2 ** this.#row);
    this.#row++;
  }

  #forget(): void {
    this.#row = 0;
    this.#ends = [];
    this.#movedMs = 0;
  }
}
