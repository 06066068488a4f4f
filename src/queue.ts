// The queue and the accounts of one link, and what all queues of an orchestrator share.
//
//   routed = delivered + dropped (by reason) + queued          at every moment, in messages
//
// "Delivered" means that the kernel took the last byte. A queue knows its bounds and who waits for
// room in it; which of its messages go out, and when, is its outbox's business.

import { GATHER_BLOCK_BYTES, MAX_FRAME_BYTES, MAX_TOTAL_QUEUE_BYTES } from "./limits.ts";
import type { Dialect, Run } from "./message.ts";
import type { TypeName } from "./message/typename.ts";
import { DEFAULT_LINK_SETTINGS, type LinkSettings } from "./model.ts";
import { Translator } from "./message/translate.ts";

/** Why a message was not delivered. Normative in `docs/protocol.md`. */
export type DropReason =
  | "full" // its queue, or all queues together, are at their bound
  | "oversize" // the line or datagram would be longer than the receiver accepts
  | "not_utf8" // the payload cannot cross to the Veecle dialect
  | "not_connected" // the target was stopped, or its connection ended within the message
  | "target_gone" // the target exited or was removed with the message queued
  | "unreachable"; // the datagram could not be sent to the other orchestrator's address

/** Memory that one queue's small stretches are copied to. When none lies in it any more, it is used again. */
export interface Block {
  readonly bytes: Buffer;
  filled: number;
  /** How many segments lie in it. */
  segments: number;
}

/** A stretch of one link's messages in an outbox. Forms two lists: of the outbox and of its queue. */
export interface Segment {
  readonly queue: LinkQueue;
  dialect: Dialect;
  /** Undefined for our own control messages, which are never translated. */
  readonly type: TypeName | undefined;
  chunk: Buffer;
  /** The block that is its chunk, if it was copied. */
  block: Block | undefined;
  start: number;
  end: number;
  /** What its only message has behind its chunk; `end` then counts as if all were one. */
  rest: readonly Buffer[];
  count: number;
  /** The beginning of its only message is sent already. */
  partial: boolean;
  previous: Segment | undefined;
  next: Segment | undefined;
  previousOfQueue: Segment | undefined;
  nextOfQueue: Segment | undefined;
}

/** Who is not read from while a queue with the policy `block` is over its bound. */
export interface Producer {
  block(queue: LinkQueue): void;
  unblock(queue: LinkQueue): void;
}

/** Who may drop the messages of a queue. */
export interface QueueOwner {
  /** Drops the oldest messages until so many bytes are free, or no more can be; returns how many were freed. */
  shed(queue: LinkQueue, bytes: number): number;
}

/** Where a link leads: takes messages, and hands them on when the router says so. */
export interface Target {
  /** Whether it holds messages of this turn; set and cleared by the router. */
  isTouched: boolean;
  /** Takes a run of messages of one link. The run is not kept, its chunk may be. */
  push(queue: LinkQueue, run: Run): void;
  /** Called once for each chunk of which something was pushed. */
  flush(): void;
  /** Drops what is queued of one link, which is being removed. */
  forget(queue: LinkQueue): void;
}

/** The accounts of one link, and its messages in the outbox of its target. */
export class LinkQueue {
  routed = 0;
  delivered = 0;
  queued = 0;
  queuedBytes = 0;
  readonly dropped: Map<DropReason, number> = new Map();
  settings: LinkSettings;
  first: Segment | undefined;
  last: Segment | undefined;
  /** The block that its small stretches are copied to. */
  block: Block | undefined;
  /** The outbox of its target, once a message has come. */
  owner: QueueOwner | undefined;
  readonly #onDrop: ((reason: DropReason, count: number) => void) | undefined;
  #waiting: Set<Producer> | undefined;

  constructor(
    onDrop?: (reason: DropReason, count: number) => void,
    settings: LinkSettings = DEFAULT_LINK_SETTINGS,
  ) {
    this.#onDrop = onDrop;
    this.settings = settings;
  }

  /** Counts messages that were routed and will not be delivered. */
  drop(reason: DropReason, count: number): void {
    if (count === 0) return;
    this.dropped.set(reason, (this.dropped.get(reason) ?? 0) + count);
    this.#onDrop?.(reason, count);
  }

  /** Whether it has room for so many bytes and messages more. */
  hasRoom(bytes: number, messages: number): boolean {
    const { maxBytes, maxMessages } = this.settings;
    return this.queuedBytes + bytes <= maxBytes && this.queued + messages <= maxMessages;
  }

  /** Lets a producer wait, if the link says so and the queue is over its bound. */
  holdBack(producer: Producer): void {
    if (this.settings.onFull !== "block" || this.hasRoom(0, 0)) return;
    this.#waiting ??= new Set();
    if (this.#waiting.has(producer)) return;
    this.#waiting.add(producer);
    producer.block(this);
  }

  /** Lets waiting producers go on, once half of the queue is free. */
  letGo(): void {
    if (this.#waiting === undefined) return;
    const { maxBytes, maxMessages, onFull } = this.settings;
    const isLow = this.queuedBytes <= maxBytes / 2 && this.queued <= maxMessages / 2;
    if (isLow || onFull !== "block") this.release();
  }

  /** Lets waiting producers go on in any case. */
  release(): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    for (const producer of waiting ?? []) producer.unblock(this);
  }
}

/** What all queues share: the bound of them together, spare scratch blocks, the translator. */
export class OutboxPool {
  usedBytes = 0;
  #maxBytes: number;
  readonly translator: Translator = new Translator();
  readonly #blocks: Buffer[] = [];
  readonly #queues: Set<LinkQueue> = new Set();

  constructor(maxBytes: number = MAX_TOTAL_QUEUE_BYTES) {
    this.#maxBytes = maxBytes;
  }

  get maxBytes(): number {
    return this.#maxBytes;
  }

  /** The system has no more memory: from now on all queues together hold half of what they do. */
  relieve(): void {
    this.#maxBytes = Math.min(this.#maxBytes, Math.max(this.usedBytes >>> 1, MAX_FRAME_BYTES));
    this.makeRoom(0);
    for (const block of this.#blocks.splice(0)) free(block);
  }

  /** Counts on a queue when room is needed. */
  enter(queue: LinkQueue): void {
    this.#queues.add(queue);
  }

  leave(queue: LinkQueue): void {
    this.#queues.delete(queue);
  }

  /**
   * Makes room for so many bytes, at the expense of whichever queue is the largest, then the next
   * one; false if it cannot.
   */
  makeRoom(bytes: number): boolean {
    while (this.usedBytes + bytes > this.maxBytes) {
      // A little more than needed, so that the search is rare.
      const excess = Math.max(this.usedBytes + bytes - this.maxBytes, this.maxBytes >>> 12);
      if (!this.#shedLargest(excess)) return false;
    }
    return true;
  }

  #shedLargest(bytes: number): boolean {
    const queues = [...this.#queues].filter((queue) => queue.queuedBytes > 0);
    queues.sort((a, b) => b.queuedBytes - a.queuedBytes);
    return queues.some(
      (queue) => (queue.owner?.shed(queue, Math.min(bytes, queue.queuedBytes)) ?? 0) > 0,
    );
  }

  takeBlock(): Buffer {
    return this.#blocks.pop() ?? Buffer.allocUnsafeSlow(GATHER_BLOCK_BYTES);
  }

  /**
   * Takes back memory in which nothing lies any more. What is not kept is freed by hand: the
   * collector would let hundreds of megabytes of it pile up.
   */
  giveBack(block: Buffer): void {
    if (block.length === GATHER_BLOCK_BYTES && this.#blocks.length < 64) this.#blocks.push(block);
    else free(block);
  }
}

function free({ buffer, length }: Buffer): void {
  if (buffer instanceof ArrayBuffer && length === buffer.byteLength) buffer.transfer(0);
}
