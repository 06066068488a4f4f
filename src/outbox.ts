// Unsent bytes of one connection: bounds, what is dropped when they are reached, exact accounts.
//
// Pure: it is handed a `write` and owns no socket. Messages leave in the order in which they came,
// whatever their link. Each link has its own bound and its own accounts, in a `LinkQueue`:
//
//   routed = delivered + dropped (by reason) + queued          at every moment, in messages
//
// "Delivered" means that the kernel took the last byte. Within one turn small messages are gathered
// in a scratch block, so that a target costs one system call; large ones are handed on as views.
// What is left after a write is settled: copied, or kept as a view that pins little more than itself.

import {
  GATHER_BLOCK_BYTES,
  GATHER_FRAME_BYTES,
  MAX_PIN_RATIO,
  MAX_QUEUE_BYTES,
  MAX_TOTAL_QUEUE_BYTES,
  MAX_VEECLE_LINE_BYTES,
} from "./limits.ts";
import { type Dialect, messageEnd, type Run, translate, type TypeName } from "./message.ts";

/** Why a message was not delivered. Normative in `docs/protocol.md`. */
export type DropReason =
  | "full" // its queue, or all queues together, are at their bound
  | "oversize" // the line or datagram would be longer than the receiver accepts
  | "not_utf8" // the payload cannot cross to the Veecle dialect
  | "not_connected" // the target was stopped, or its connection ended within the message
  | "target_gone" // the target exited or was removed with the message queued
  | "unreachable"; // the other orchestrator's address refused the datagram

/** A stretch of one link's messages in an outbox. Forms two lists: of the outbox and of its queue. */
interface Segment {
  readonly queue: LinkQueue;
  dialect: Dialect;
  /** Undefined for our own control messages, which are never translated. */
  readonly type: TypeName | undefined;
  chunk: Buffer;
  start: number;
  end: number;
  count: number;
  /** The beginning of its only message is sent already. */
  partial: boolean;
  previous: Segment | undefined;
  next: Segment | undefined;
  previousOfQueue: Segment | undefined;
  nextOfQueue: Segment | undefined;
}

/** The accounts of one link, and its queued messages in the outbox of its target. */
export class LinkQueue {
  routed = 0;
  delivered = 0;
  queued = 0;
  queuedBytes = 0;
  readonly maxBytes: number;
  readonly dropped: Map<DropReason, number> = new Map();
  readonly #onDrop: ((reason: DropReason, count: number) => void) | undefined;
  first: Segment | undefined;
  last: Segment | undefined;
  block: Buffer | undefined;
  blockFilled = 0;

  constructor(
    onDrop?: (reason: DropReason, count: number) => void,
    maxBytes: number = MAX_QUEUE_BYTES,
  ) {
    this.#onDrop = onDrop;
    this.maxBytes = maxBytes;
  }

  /** Counts messages that were routed and will not be delivered. */
  drop(reason: DropReason, count: number): void {
    if (count === 0) return;
    this.dropped.set(reason, (this.dropped.get(reason) ?? 0) + count);
    this.#onDrop?.(reason, count);
  }
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

/** What all outboxes of an orchestrator share: the bound of their queues, and spare scratch blocks. */
export class OutboxPool {
  usedBytes = 0;
  readonly maxBytes: number;
  readonly #blocks: Buffer[] = [];

  constructor(maxBytes: number = MAX_TOTAL_QUEUE_BYTES) {
    this.maxBytes = maxBytes;
  }

  takeBlock(): Buffer {
    return this.#blocks.pop() ?? Buffer.allocUnsafeSlow(GATHER_BLOCK_BYTES);
  }

  giveBack(block: Buffer): void {
    if (this.#blocks.length < 64) this.#blocks.push(block);
  }
}

/** The unsent messages of one instance. */
export class Outbox implements Target {
  isTouched = false;
  readonly #pool: OutboxPool;
  /** Control messages of ours: few and small, they have no bound of their own. */
  readonly #control: LinkQueue = new LinkQueue();
  #write: ((bytes: Buffer) => number) | undefined;
  #dialect: Dialect = "veecle";
  #isClosed = false;
  #isFull = false;
  #first: Segment | undefined;
  #last: Segment | undefined;
  #scratch: Buffer | undefined;
  #scratchFilled = 0;
  /** The first segment that still lies in the scratch block or in somebody's chunk. */
  #unsettled: Segment | undefined;

  constructor(pool: OutboxPool) {
    this.#pool = pool;
  }

  get isEmpty(): boolean {
    return this.#first === undefined;
  }

  /**
   * From now on writes through `write`, which returns how many bytes it took, 0 or less if none.
   * What is queued is translated, except for a message whose beginning is sent already.
   */
  attach(dialect: Dialect, write: (bytes: Buffer) => number): void {
    this.#write = write;
    this.#dialect = dialect;
    this.#isFull = false;
    for (let segment = this.#first; segment !== undefined;) {
      const next = segment.next;
      if (!segment.partial && segment.type !== undefined) this.#adapt(segment, segment.type);
      segment = next;
    }
    this.flush();
  }

  /** The connection is gone: a message that was cut is dropped, the others wait for the next connection. */
  detach(): void {
    this.#write = undefined;
    if (this.#first?.partial === true) this.#discard(this.#first, "not_connected");
    while (this.#control.first !== undefined) this.#discard(this.#control.first, "not_connected");
  }

  /** Accepts messages again, as it does from the beginning. */
  open(): void {
    this.#isClosed = false;
  }

  /** Drops everything; what comes from now on is dropped as `not_connected`. */
  close(): void {
    this.#isClosed = true;
    while (this.#first !== undefined) this.#discard(this.#first, "target_gone");
  }

  forget(queue: LinkQueue): void {
    for (let segment = queue.first; segment !== undefined;) {
      const next = segment.nextOfQueue;
      if (!segment.partial) this.#discard(segment, "target_gone");
      segment = next;
    }
  }

  push(queue: LinkQueue, run: Run): void {
    queue.routed += run.count;
    if (this.#isClosed) {
      queue.drop("not_connected", run.count);
      return;
    }
    const isConnected = this.#write !== undefined;
    if (
      isConnected &&
      (run.dialect !== this.#dialect ||
        (run.dialect === "veecle" && run.longest > MAX_VEECLE_LINE_BYTES + 1))
    ) {
      const { type, chunk, start, end, count } = run;
      const adapted = this.#translate(queue, type, run.dialect, chunk, start, end, count);
      if (adapted.count > 0) {
        this.#enqueue(queue, type, adapted.bytes, 0, adapted.bytes.length, adapted.count);
      }
    } else this.#enqueue(queue, run.type, run.chunk, run.start, run.end, run.count, run.dialect);
  }

  /** Sends a control message of ours, encoded in the connection's dialect, behind what is queued. */
  send(message: Buffer): void {
    if (this.#write === undefined) return;
    this.#enqueue(this.#control, undefined, message, 0, message.length, 1);
    this.flush();
  }

  /** The kernel has room again. */
  drain(): void {
    this.#isFull = false;
    this.flush();
  }

  flush(): void {
    while (this.#first !== undefined && this.#write !== undefined && !this.#isFull) {
      const bytes = this.#nextWrite(this.#first);
      const taken = this.#write(bytes);
      if (taken > 0) this.#advance(taken);
      this.#isFull = taken < bytes.length;
    }
    this.#settle();
  }

  /** As many queued bytes as make one efficient write: a view, or small stretches gathered. */
  #nextWrite(first: Segment): Buffer {
    let end = first.end;
    let segment = first.next;
    for (; segment?.chunk === first.chunk && segment.start === end; segment = segment.next) {
      end = segment.end;
    }
    if (segment === undefined || end - first.start >= GATHER_FRAME_BYTES) {
      return first.start === 0 && end === first.chunk.length
        ? first.chunk
        : first.chunk.subarray(first.start, end);
    }
    this.#settle(); // the scratch block is needed, and what it held is in order
    const block = this.#takeScratch();
    let filled = 0;
    for (let part: Segment | undefined = first; part !== undefined; part = part.next) {
      const length = part.end - part.start;
      if (filled > 0 && filled + length > block.length) break;
      filled += part.chunk.copy(
        block,
        filled,
        part.start,
        part.start + Math.min(length, block.length),
      );
      if (filled === block.length) break;
    }
    return block.subarray(0, filled);
  }

  /** `bytes` more were taken by the kernel. */
  #advance(bytes: number): void {
    for (let left = bytes; left > 0;) {
      const segment = this.#first as Segment;
      const length = segment.end - segment.start;
      if (left >= length) {
        left -= length;
        segment.queue.delivered += segment.count;
        this.#unlink(segment);
        continue;
      }
      const stop = segment.start + left;
      if (!segment.partial) this.#deliverUpTo(segment, stop);
      this.#forgetBytes(segment.queue, stop - segment.start);
      segment.start = stop;
      return;
    }
  }

  /** Counts the whole messages that end at or before `stop`, and splits off the one that is cut. */
  #deliverUpTo(segment: Segment, stop: number): void {
    let count = 0;
    let message = segment.start;
    let end = messageEnd(segment.dialect, segment.chunk, message);
    while (end <= stop) {
      count++;
      message = end;
      end = messageEnd(segment.dialect, segment.chunk, message);
    }
    segment.queue.delivered += count;
    segment.queue.queued -= count;
    segment.count -= count;
    if (message === stop) return;
    segment.partial = true;
    if (segment.count === 1) return;
    const rest: Segment = {
      ...segment,
      start: end,
      count: segment.count - 1,
      partial: false,
      previous: segment,
      previousOfQueue: segment,
    };
    segment.end = end;
    segment.count = 1;
    segment.next = rest;
    segment.nextOfQueue = rest;
    if (rest.next === undefined) this.#last = rest;
    else rest.next.previous = rest;
    if (rest.nextOfQueue === undefined) rest.queue.last = rest;
    else rest.nextOfQueue.previousOfQueue = rest;
  }

  #enqueue(
    queue: LinkQueue,
    type: TypeName | undefined,
    chunk: Buffer,
    start: number,
    end: number,
    count: number,
    dialect: Dialect = this.#dialect,
  ): void {
    let from = start;
    let left = count;
    const room = Math.min(queue.maxBytes, this.#pool.maxBytes);
    if (end - from > room) {
      while (end - from > room) {
        from = messageEnd(dialect, chunk, from);
        left--;
      }
      queue.drop("full", count - left);
      if (left === 0) return;
    }
    const length = end - from;
    if (queue.queuedBytes + length > queue.maxBytes) {
      this.#dropOldest(queue, queue.queuedBytes + length - queue.maxBytes);
    }
    const excess = this.#pool.usedBytes + length - this.#pool.maxBytes;
    if (excess > 0 && this.#dropOldest(queue, excess) < excess) {
      queue.drop("full", left);
      return;
    }
    queue.queued += left;
    queue.queuedBytes += length;
    this.#pool.usedBytes += length;
    if (length > GATHER_FRAME_BYTES) this.#append(queue, type, dialect, chunk, from, end, left);
    else this.#gather(queue, type, dialect, chunk, from, end, left);
  }

  #append(
    queue: LinkQueue,
    type: TypeName | undefined,
    dialect: Dialect,
    chunk: Buffer,
    start: number,
    end: number,
    count: number,
  ): void {
    const segment: Segment = {
      queue,
      dialect,
      type,
      chunk,
      start,
      end,
      count,
      partial: false,
      previous: this.#last,
      next: undefined,
      previousOfQueue: queue.last,
      nextOfQueue: undefined,
    };
    if (this.#last === undefined) this.#first = segment;
    else this.#last.next = segment;
    this.#last = segment;
    if (queue.last === undefined) queue.first = segment;
    else queue.last.nextOfQueue = segment;
    queue.last = segment;
    this.#unsettled ??= segment;
  }

  #gather(
    queue: LinkQueue,
    type: TypeName | undefined,
    dialect: Dialect,
    chunk: Buffer,
    start: number,
    end: number,
    count: number,
  ): void {
    if (this.#scratchFilled + end - start > GATHER_BLOCK_BYTES) this.flush();
    const block = this.#takeScratch();
    const at = this.#scratchFilled;
    this.#scratchFilled += chunk.copy(block, at, start, end);
    const last = this.#last;
    if (
      last?.queue === queue &&
      last.chunk === block &&
      last.end === at &&
      !last.partial &&
      last.dialect === dialect
    ) {
      last.end = this.#scratchFilled;
      last.count += count;
    } else this.#append(queue, type, dialect, block, at, this.#scratchFilled, count);
  }

  #takeScratch(): Buffer {
    this.#scratch ??= this.#pool.takeBlock();
    return this.#scratch;
  }

  /** Moves what still lies in the scratch block, or pins too large a chunk, into its queue's own blocks. */
  #settle(): void {
    for (let segment = this.#unsettled; segment !== undefined; segment = segment.next) {
      const length = segment.end - segment.start;
      const { chunk } = segment;
      if (chunk === this.#scratch || chunk.buffer.byteLength > length * MAX_PIN_RATIO) {
        copyIntoBlock(segment, length);
        this.#merge(segment);
      }
    }
    this.#unsettled = undefined;
    this.#scratchFilled = 0;
    if (this.#scratch !== undefined) this.#pool.giveBack(this.#scratch);
    this.#scratch = undefined;
  }

  /** Joins a segment with the one before it if they are neighbours in every respect. */
  #merge(segment: Segment): void {
    const { previous } = segment;
    if (
      previous?.queue === segment.queue &&
      previous.chunk === segment.chunk &&
      previous.end === segment.start &&
      previous.dialect === segment.dialect &&
      !previous.partial
    ) {
      this.#takeOut(segment);
      previous.end = segment.end;
      previous.count += segment.count;
    }
  }

  /** Drops the oldest whole messages of a queue until `bytes` are free; returns how many it freed. */
  #dropOldest(queue: LinkQueue, bytes: number): number {
    let freed = 0;
    let count = 0;
    let segment = queue.first?.partial === true ? queue.first.nextOfQueue : queue.first;
    while (segment !== undefined && freed < bytes) {
      const next: Segment | undefined = segment.nextOfQueue;
      if (segment.end - segment.start <= bytes - freed) {
        freed += segment.end - segment.start;
        count += segment.count;
        this.#unlink(segment);
      } else {
        const start = segment.start;
        let dropped = 0;
        while (freed + segment.start - start < bytes) {
          segment.start = messageEnd(segment.dialect, segment.chunk, segment.start);
          dropped++;
        }
        segment.count -= dropped;
        queue.queued -= dropped;
        count += dropped;
        this.#forgetBytes(queue, segment.start - start);
        freed += segment.start - start;
        if (segment.count === 0) this.#unlink(segment);
      }
      segment = next;
    }
    queue.drop("full", count);
    return freed;
  }

  #discard(segment: Segment, reason: DropReason): void {
    const { queue, count } = segment;
    this.#unlink(segment);
    if (queue !== this.#control) queue.drop(reason, count);
  }

  #forgetBytes(queue: LinkQueue, bytes: number): void {
    queue.queuedBytes -= bytes;
    this.#pool.usedBytes -= bytes;
  }

  /** Takes a segment out of both lists and out of the counts of what is queued. */
  #unlink(segment: Segment): void {
    const { queue } = segment;
    this.#takeOut(segment);
    if (queue.first === undefined) queue.block = undefined;
    queue.queued -= segment.count;
    this.#forgetBytes(queue, segment.end - segment.start);
  }

  #takeOut(segment: Segment): void {
    const { queue, previous, next, previousOfQueue, nextOfQueue } = segment;
    if (previous === undefined) this.#first = next;
    else previous.next = next;
    if (next === undefined) this.#last = previous;
    else next.previous = previous;
    if (previousOfQueue === undefined) queue.first = nextOfQueue;
    else previousOfQueue.nextOfQueue = nextOfQueue;
    if (nextOfQueue === undefined) queue.last = previousOfQueue;
    else nextOfQueue.previousOfQueue = previousOfQueue;
    if (this.#unsettled === segment) this.#unsettled = next;
  }

  /** Brings a queued segment into the connection's dialect. */
  #adapt(segment: Segment, type: TypeName): void {
    const { queue, chunk, start, end, count } = segment;
    if (segment.dialect === this.#dialect && this.#dialect === "native") return;
    const adapted = this.#translate(queue, type, segment.dialect, chunk, start, end, count);
    queue.queued += adapted.count - segment.count;
    this.#forgetBytes(queue, end - start - adapted.bytes.length);
    segment.dialect = this.#dialect;
    segment.chunk = adapted.bytes;
    segment.start = 0;
    segment.end = adapted.bytes.length;
    segment.count = adapted.count;
    if (segment.count === 0) this.#unlink(segment);
  }

  /** Messages as this connection takes them; the others are counted as dropped. */
  #translate(
    queue: LinkQueue,
    type: TypeName,
    dialect: Dialect,
    chunk: Buffer,
    start: number,
    end: number,
    count: number,
  ): { bytes: Buffer; count: number } {
    const parts: Buffer[] = [];
    let notUtf8 = 0;
    for (let at = start; at < end;) {
      const next = messageEnd(dialect, chunk, at);
      const message = chunk.subarray(at, next);
      const part = dialect === this.#dialect ? message : translate(type, dialect, message);
      if (part === undefined) notUtf8++;
      else if (this.#dialect === "native" || part.length <= MAX_VEECLE_LINE_BYTES + 1) {
        parts.push(part);
      }
      at = next;
    }
    queue.drop("not_utf8", notUtf8);
    queue.drop("oversize", count - notUtf8 - parts.length);
    return { bytes: Buffer.concat(parts), count: parts.length };
  }
}

/** Copies a segment behind what its queue has already, in blocks that grow with the queue. */
function copyIntoBlock(segment: Segment, length: number): void {
  const { queue } = segment;
  if (queue.block === undefined || queue.blockFilled + length > queue.block.length) {
    const size = Math.min(Math.max(queue.queuedBytes, 4096), GATHER_BLOCK_BYTES);
    queue.block = Buffer.allocUnsafeSlow(Math.max(size, length));
    queue.blockFilled = 0;
  }
  const at = queue.blockFilled;
  queue.blockFilled += segment.chunk.copy(queue.block, at, segment.start, segment.end);
  segment.chunk = queue.block;
  segment.start = at;
  segment.end = queue.blockFilled;
}
