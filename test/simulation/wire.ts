// A stream socket without a system: what the kernel would do to it is done by a seed.
//
//   program ──send──► in flight ──deliver──► handlers.data        cut anywhere, held back by `pause`
//   program ◄──read── the kernel's buffer ◄── connection.write    short, or not at all until `drain`
//
// A real socket never calls a handler from within `write`, and calls `close` from within `close`, once;
// `test/e2e` finds the same of the real one. What the daemon's end was given is told to `onTaken` at once:
// that is the moment from which it counts as said.

import { LINGER_MS } from "../../src/limits.ts";
import type { Accept, Connection, Origin, StreamHandlers } from "../../src/socket.ts";
import type { Random } from "../support/random.ts";

export interface WireOptions {
  readonly random: Random;
  readonly peer: string;
  readonly origin?: Origin;
  readonly descriptor?: number;
  after(ms: number, action: () => void): () => void;
  /** The kernel has taken bytes from the daemon. */
  onTaken(bytes: Buffer): void;
  /** So many bytes in all reach the daemon in the next moment; infinitely many: that was all. */
  onDeliver(bytes: number): void;
  /** Both directions are gone; whether the daemon has seen to that, or its linger; whether it is told. */
  onClose(isOurs: boolean, isTold: boolean): void;
  /** A handler has thrown. */
  onFault(error: unknown): void;
}

/** One connection between a program and the daemon. */
export class Wire {
  readonly #options: WireOptions;
  readonly #random: Random;
  #handlers: StreamHandlers | undefined;
  /** How much the kernel holds for the program, and how often it takes less than it could. */
  #capacity: number;
  #shortness: number;
  #unread = 0;
  #wantsDrain = false;
  #inFlight: Buffer = Buffer.alloc(0);
  #delivered = 0;
  #isEnding = false;
  #hasEnded = false;
  #isPaused = false;
  #isFinished = false;
  #isClosed = false;
  #cancelLinger: () => void = () => {};

  /** Connects: the daemon may close it at once. */
  constructor(options: WireOptions, accept: Accept) {
    this.#options = options;
    const { random, peer, origin, descriptor } = options;
    this.#random = random;
    this.#capacity = random.pick([1, 40, 600, 8_000, 200_000]);
    this.#shortness = random.pick([0, 0, 0.1, 0.7]);
    const connection: Connection = {
      ...(origin === undefined ? {} : { origin }),
      ...(descriptor === undefined ? {} : { descriptor }),
      peer,
      write: (bytes) => this.#write(bytes),
      finish: () => this.#finish(),
      close: () => this.#close(true),
      pause: () => (this.#isPaused = true),
      resume: () => (this.#isPaused = false),
    };
    this.#guard(() => {
      const handlers = accept(connection);
      if (!this.#isClosed) this.#handlers = handlers;
    });
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** The program sends no more. */
  get isEnding(): boolean {
    return this.#isClosed || this.#isEnding;
  }

  /** The daemon sends no more. */
  get isFinished(): boolean {
    return this.#isClosed || this.#isFinished;
  }

  /** The daemon sends no more, and what it has sent is read. */
  get isAtEnd(): boolean {
    return this.#isFinished && this.#unread === 0;
  }

  /** The daemon does not read, or has nothing left to read. */
  get isIdle(): boolean {
    const hasMore = this.#inFlight.length > 0 || (this.#isEnding && !this.#hasEnded);
    return this.#isClosed || this.#isPaused || !hasMore;
  }

  /** The daemon is to be told that there is room again. */
  get isDrainable(): boolean {
    return !this.#isClosed && this.#wantsDrain && this.#unread < this.#capacity;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  get unread(): number {
    return this.#unread;
  }

  // The program's end.

  send(bytes: Buffer): void {
    if (!this.#isClosed && !this.#isEnding) this.#inFlight = Buffer.concat([this.#inFlight, bytes]);
  }

  /** Sends no more, and may still read. */
  end(): void {
    this.#isEnding = true;
  }

  read(bytes: number = this.#unread): void {
    this.#unread -= Math.min(bytes, this.#unread);
  }

  /** From now on the kernel takes what it is given. */
  heal(): void {
    this.#capacity = 1_000_000;
    this.#shortness = 0;
  }

  /** Ends both directions; what is in flight is lost. */
  reset(): void {
    this.#close(false);
  }

  /** The daemon was killed: nothing of it is called any more. */
  kill(): void {
    this.#handlers = undefined;
    this.#close(false);
  }

  // What the kernel does.

  /** Hands at most so many bytes to the daemon, or the end of them. */
  deliver(most: number): void {
    if (this.isIdle) return;
    const chunk = Buffer.from(this.#inFlight.subarray(0, most));
    this.#inFlight = this.#inFlight.subarray(chunk.length);
    if (chunk.length > 0) {
      this.#delivered += chunk.length;
      this.#options.onDeliver(this.#delivered);
      this.#guard(() => this.#handlers?.data(chunk));
    }
    if (this.#inFlight.length > 0 || !this.#isEnding || this.#hasEnded || this.isIdle) return;
    this.#hasEnded = true;
    this.#options.onDeliver(Number.POSITIVE_INFINITY);
    this.#guard(() => this.#handlers?.end());
    if (this.#isFinished) this.#close(true);
  }

  drain(): void {
    if (!this.isDrainable) return;
    this.#wantsDrain = false;
    this.#guard(() => this.#handlers?.drain());
  }

  #write(bytes: Uint8Array): number {
    if (this.#isClosed || this.#isFinished) return 0;
    const room = Math.min(bytes.length, this.#capacity - this.#unread);
    const taken = this.#random.chance(this.#shortness) ? this.#random.int(0, room) : room;
    if (taken < bytes.length) this.#wantsDrain = true;
    this.#unread += taken;
    if (taken > 0) this.#options.onTaken(Buffer.from(bytes.subarray(0, taken)));
    return taken;
  }

  #finish(): void {
    if (this.#isClosed || this.#isFinished) return;
    this.#isFinished = true;
    const lingerMs = this.#hasEnded ? 0 : LINGER_MS;
    this.#cancelLinger = this.#options.after(lingerMs, () => this.#close(true));
  }

  #close(isOurs: boolean): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#cancelLinger();
    const handlers = this.#handlers;
    this.#handlers = undefined;
    this.#options.onClose(isOurs, handlers !== undefined);
    this.#guard(() => handlers?.close());
  }

  /** As the door does: a handler that throws costs its own connection. */
  #guard(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#options.onFault(error);
      this.#close(true);
    }
  }
}
