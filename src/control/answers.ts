// Answers of one control connection, in order.
//
//   hold() ──► settle(): one commit for all ──► on the disk ──► the kernel takes them
//
// An answer to a change waits until the disk has it, and what comes behind it waits too; meanwhile
// everything else goes on. Nothing is dropped: who is `isBehind` is not asked for more.

import { encodeFrame, encodePrefix } from "../frame.ts";
import { GATHER_FRAME_BYTES, MAX_HELD_ANSWERS, MAX_RESPONSE_BACKLOG_BYTES } from "../limits.ts";
import { JsonPieces } from "../protocol.ts";
import type { Connection } from "../socket.ts";

/** Makes the answer, or a refusal, once it is known whether the change can be kept. */
export type Answer = () => string | JsonPieces;

export interface AnswersOptions {
  readonly connection: Pick<Connection, "write">;
  isNative(): boolean;
  /** Commits all changes; settles when the disk has them, undefined if it has them already. */
  commit(): Promise<void> | undefined;
  /** Nothing is held, waits or is unsent any more. */
  onIdle(): void;
  readonly onFault: (error: unknown) => void;
}

const LINE_END = Buffer.from("\n");

/** The answers of one connection. */
export class Answers {
  readonly #options: AnswersOptions;
  #held: Answer[] = [];
  /** Whether one of those held promises something about the future. */
  #isPromise = false;
  /** Settles when the last answers that were settled are handed to the kernel. */
  #waiting: Promise<void> | undefined;
  #waitingCount = 0;
  #unsent: Buffer[] = [];
  #unsentBytes = 0;
  #isClosed = false;
  #wake: (() => void) | undefined;

  constructor(options: AnswersOptions) {
    this.#options = options;
  }

  /** Whether everything is in the kernel's hands. */
  get isIdle(): boolean {
    return this.#held.length === 0 && this.#waitingCount === 0 && this.#unsent.length === 0;
  }

  /** Whether so much waits, for the disk or for the client, that no more should be asked for. */
  get isBehind(): boolean {
    return this.#unsentBytes > MAX_RESPONSE_BACKLOG_BYTES || this.#waitingCount >= MAX_HELD_ANSWERS;
  }

  /** Whether those held are so many that a common commit saves nothing more. */
  get isFull(): boolean {
    return this.#held.length >= MAX_HELD_ANSWERS;
  }

  /** Keeps an answer until `settle()`; one that `isPromise` must not be sent before the disk has it. */
  hold(answer: Answer, isPromise: boolean): void {
    this.#held.push(answer);
    this.#isPromise ||= isPromise;
  }

  /** Commits, and sends what is held as soon as that may be. */
  settle(): void {
    if (this.#held.length === 0) return;
    const held = this.#held;
    const committed = this.#options.commit();
    const durable = this.#isPromise ? committed : undefined;
    this.#held = [];
    this.#isPromise = false;
    if (durable !== undefined || this.#waiting !== undefined) {
      this.#waiting = this.#sendAfter(held, this.#waiting, durable);
      return;
    }
    this.#sendAll(held);
    this.#tellIdle();
  }

  /** Sends one answer behind everything that was settled; the caller has awaited that. */
  sendNow(json: string | JsonPieces): void {
    for (const bytes of this.#encode(json)) this.send(bytes);
  }

  /** Sends bytes of a stream, behind everything that was settled; they are kept until they are sent. */
  send(bytes: Buffer): void {
    if (this.#isClosed) return;
    const taken = this.#unsent.length > 0 ? 0 : this.#options.connection.write(bytes);
    if (taken === bytes.length) return;
    this.#unsent.push(bytes.subarray(taken));
    this.#unsentBytes += bytes.length - taken;
  }

  /** Settles what is held; is done when all is in the kernel's hands, or nobody is there any more. */
  async idle(): Promise<void> {
    this.settle();
    while (!this.#isClosed && !this.isIdle) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await promise;
    }
  }

  /** The kernel takes bytes again. */
  drain(): void {
    while (this.#unsent.length > 0) {
      const [bytes] = this.#unsent as [Buffer];
      const taken = this.#options.connection.write(bytes);
      this.#unsentBytes -= taken;
      if (taken < bytes.length) {
        this.#unsent[0] = bytes.subarray(taken);
        return;
      }
      this.#unsent.shift();
    }
    this.#tellIdle();
  }

  /** Nobody is there any more: what is held is still decided, and sent nowhere. */
  close(): void {
    this.#isClosed = true;
    this.#unsent = [];
    this.#unsentBytes = 0;
    this.#wake?.();
  }

  /** One answer as bytes of the connection's dialect. */
  #encode(json: string | JsonPieces): readonly Buffer[] {
    const isNative = this.#options.isNative();
    if (typeof json === "string") return [isNative ? encodeFrame(json) : Buffer.from(`${json}\n`)];
    const { pieces } = json;
    if (!isNative) return [...pieces, LINE_END];
    return [encodePrefix(pieces.reduce((sum, { length }) => sum + length, 0)), ...pieces];
  }

  async #sendAfter(
    held: readonly Answer[],
    before: Promise<void> | undefined,
    durable: Promise<void> | undefined,
  ): Promise<void> {
    this.#waitingCount += held.length;
    try {
      await before;
      await durable;
      this.#sendAll(held);
    } catch (error) {
      this.#options.onFault(error);
    }
    this.#waitingCount -= held.length;
    if (this.#waitingCount === 0) this.#waiting = undefined;
    this.#tellIdle();
  }

  #sendAll(held: readonly Answer[]): void {
    for (const bytes of gather(held.flatMap((answer) => this.#encode(answer())))) this.send(bytes);
  }

  #tellIdle(): void {
    if (!this.isIdle) return;
    this.#wake?.();
    this.#options.onIdle();
  }
}

/** Joins what is short; what is long is not copied. */
function gather(pieces: readonly Buffer[]): Buffer[] {
  const gathered: Buffer[] = [];
  let short: Buffer[] = [];
  const join = (): void => {
    if (short.length > 0)
      gathered.push(short.length === 1 ? (short[0] as Buffer) : Buffer.concat(short));
    short = [];
  };
  for (const piece of pieces) {
    if (piece.length > GATHER_FRAME_BYTES) {
      join();
      gathered.push(piece);
    } else short.push(piece);
  }
  join();
  return gathered;
}
