// How long a command, or a step of one, goes on waiting.

/** A moment after which waiting is given up. */
export class Deadline {
  readonly #endMs: number;
  readonly timeoutMs: number;

  constructor(timeoutMs: number) {
    this.timeoutMs = timeoutMs;
    this.#endMs = performance.now() + timeoutMs;
  }

  /** Milliseconds left, 0 when it has passed. */
  get leftMs(): number {
    return Math.max(0, this.#endMs - performance.now());
  }
}
