// Whether and when a program that has ended is started again. Pure: time and chance are handed in.
//
// The pause doubles from one restart to the next, until a process was up long enough to be well.

import {
  MAX_RESTARTS,
  RESTART_JITTER,
  RESTART_MAX_DELAY_MS,
  RESTART_RESET_MS,
  RESTART_WINDOW_MS,
} from "../limits.ts";
import type { Exit } from "../model.ts";
import type { RestartPolicy } from "../settings.ts";

/** What follows the end of a process. */
export type Verdict =
  | { readonly kind: "ended" }
  | { readonly kind: "crashed"; readonly delayMs: number }
  | { readonly kind: "exhausted" };

/** The restarts of one instance. */
export class Restarts {
  /** How often in a row it was started again without having been well since. */
  #streak = 0;
  /** When the runs of the present streak ended, had the pauses not varied by chance. */
  #ends: number[] = [];
  #chanceMs = 0;
  readonly #random: () => number;

  /** `random` returns numbers from 0 up to but not including 1. */
  constructor(random: () => number) {
    this.#random = random;
  }

  /** Somebody has started it: what was before does not count any more. */
  reset(): void {
    this.#streak = 0;
    this.#ends = [];
    this.#chanceMs = 0;
  }

  /** Decides what follows an exit at `nowMs` after a run of `ranMs`. */
  judge(
    policy: RestartPolicy,
    firstDelayMs: number,
    exit: Exit,
    ranMs: number,
    nowMs: number,
  ): Verdict {
    if (policy === "no" || (policy === "on-failure" && exit.code === 0)) return { kind: "ended" };
    if (ranMs >= RESTART_RESET_MS) this.reset();
    const end = nowMs - this.#chanceMs;
    this.#ends = this.#ends.filter((earlier) => earlier > end - RESTART_WINDOW_MS);
    this.#ends.push(end);
    if (this.#ends.length >= MAX_RESTARTS) {
      this.reset();
      return { kind: "exhausted" };
    }
    const plannedMs = Math.min(firstDelayMs * 2 ** this.#streak, RESTART_MAX_DELAY_MS);
    const delayMs = plannedMs * (1 + RESTART_JITTER * (2 * this.#random() - 1));
    this.#streak++;
    this.#chanceMs += delayMs - plannedMs;
    return { kind: "crashed", delayMs };
  }
}
