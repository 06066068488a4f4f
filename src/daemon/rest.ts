// When the daemon comes to rest: what many starts have taken is given back then, and not often.

import { REST_INTERVAL_MS, REST_MS, REST_STARTS } from "../limits.ts";

export interface RestOptions {
  after(ms: number, action: () => void): () => void;
  /** Milliseconds on a clock that is never set. */
  now(): number;
  onRest(): void;
}

/** Calls `onRest` once `stir()` was called often, and then not for a while. */
export class Rest {
  readonly #options: RestOptions;
  #lastMs = Number.NEGATIVE_INFINITY;
  #stirs = 0;
  #cancel: (() => void) | undefined;

  constructor(options: RestOptions) {
    this.#options = options;
  }

  /** Something has begun. Cheap, and without an end where it is called all the time. */
  stir(): void {
    if (++this.#stirs < REST_STARTS) return;
    const { after, now, onRest } = this.#options;
    const waitMs = Math.max(REST_MS, this.#lastMs + REST_INTERVAL_MS - now());
    this.#cancel?.();
    this.#cancel = after(waitMs, () => {
      this.#cancel = undefined;
      this.#stirs = 0;
      this.#lastMs = now();
      onRest();
    });
  }

  close(): void {
    this.#cancel?.();
  }
}
