// One connection's outbox: in which dialect messages go out, from which memory, and when.
//
// Pure: it is handed a `write` and owns no socket. What waits, and what is dropped, is its backlog's
// business. Within one turn small messages are gathered in a scratch block, so that a target costs one
// system call; large ones are handed on as views. What is left after a write is settled: copied, or
// kept as a view that pins little more than itself.

import {
  GATHER_BLOCK_BYTES,
  GATHER_FRAME_BYTES,
  MAX_UNREAD_NOTICE_BYTES,
  MAX_VEECLE_LINE_BYTES,
} from "./limits.ts";
import { Backlog } from "./outbox/backlog.ts";
import { type Dialect, messageEnd, NO_REST, type Run } from "./message.ts";
import {
  copyIntoBlock,
  longestOf,
  neighbours,
  type SegmentList,
  slim,
  slimFront,
} from "./outbox/segments.ts";
import type { TypeName } from "./message/typename.ts";
import type { LinkQueue, OutboxPool, Segment, Target } from "./queue.ts";

/** The unsent messages of one instance. */
export class Outbox implements Target {
  isTouched = false;
  readonly #pool: OutboxPool;
  readonly #backlog: Backlog;
  readonly #segments: SegmentList;
  #write: ((bytes: Buffer) => number) | undefined;
  #dialect: Dialect = "veecle";
  #isClosed = false;
  #isFull = false;
  /** A message was cut on the present connection. */
  #isCut = false;
  #scratch: Buffer | undefined;
  #scratchFilled = 0;

  constructor(pool: OutboxPool) {
    this.#pool = pool;
    this.#backlog = new Backlog(pool);
    this.#segments = this.#backlog.segments;
  }

  get isEmpty(): boolean {
    return this.#segments.first === undefined;
  }

  /**
   * From now on writes through `write`, which returns how many bytes it took, 0 or less if none.
   * What is queued is translated, except for a message whose beginning is sent already. The dialect
   * of a connection may be told twice: first as it is taken to be.
   */
  attach(dialect: Dialect, write: (bytes: Buffer) => number): void {
    this.#write = this.#isCut ? undefined : write;
    this.#dialect = dialect;
    this.#isFull = false;
    const queues = new Set<LinkQueue>();
    for (let segment = this.#segments.first; segment !== undefined;) {
      const next = segment.next;
      if (!segment.partial && segment.type !== undefined) {
        this.#adaptSegment(segment, segment.type);
        queues.add(segment.queue);
      }
      segment = next;
    }
    // The same messages may need more bytes than before.
    for (const queue of queues) {
      const excess = queue.queuedBytes - queue.settings.maxBytes;
      if (excess > 0 && queue.settings.onFull !== "block") this.#backlog.shed(queue, excess);
    }
    this.#pool.makeRoom(0);
    this.#segments.unsettled = this.#segments.first; // what lay beside it may be gone
    this.flush();
  }

  /** The connection is gone: a message that was cut is dropped, the others wait for the next connection. */
  detach(): void {
    this.#write = undefined;
    this.#isCut = false;
    this.#backlog.disconnect();
  }

  /** Accepts messages again, as it does from the beginning. */
  open(): void {
    this.#isClosed = false;
  }

  /**
   * Drops everything; what comes from now on is dropped as `not_connected`. A connection on which a
   * message is cut by that carries nothing more: nobody could tell where the next one begins.
   */
  close(): void {
    this.#isClosed = true;
    if (this.#segments.first?.partial === true) {
      this.#write = undefined;
      this.#isCut = true;
    }
    this.#backlog.clear();
  }

  forget(queue: LinkQueue): void {
    this.#backlog.forget(queue);
  }

  push(queue: LinkQueue, run: Run): void {
    queue.routed += run.count;
    if (this.#isClosed) {
      queue.drop("not_connected", run.count);
      return;
    }
    if (this.#extend(queue, run)) return;
    const { type, dialect, chunk, start, end, rest, count, longest } = run;
    if (this.#write === undefined || this.#takes(dialect, longest)) {
      this.#enqueue(queue, type, chunk, start, end, count, dialect, rest);
    } else {
      this.#adapt(queue, type, dialect, chunk, start, end, longest, (bytes, from, to, adapted) => {
        this.#enqueue(queue, type, bytes, from, to, adapted);
        if (to - from > GATHER_FRAME_BYTES) this.flush(); // the translator needs its block again
      });
    }
  }

  /** Sends a control message of ours, encoded in the connection's dialect, behind what is queued. */
  send(message: Buffer): void {
    if (this.#write === undefined) return;
    this.#enqueue(this.#backlog.control, undefined, message, 0, message.length, 1);
    this.flush();
  }

  /** Sends a notice, unless its receiver has left many unread: it would learn nothing new. */
  notify(notice: Buffer): void {
    const unread = this.#backlog.control.queuedBytes + notice.length;
    if (unread <= MAX_UNREAD_NOTICE_BYTES) this.send(notice);
  }

  /** The kernel has room again. */
  drain(): void {
    this.#isFull = false;
    this.flush();
  }

  flush(): void {
    while (this.#segments.first !== undefined && this.#write !== undefined && !this.#isFull) {
      const bytes = this.#nextWrite(this.#segments.first);
      const taken = this.#write(bytes);
      if (taken > 0) this.#backlog.advance(taken);
      this.#isFull = taken < bytes.length;
    }
    this.#settle();
    slimFront(this.#segments.first, this.#pool);
  }

  /** As many queued bytes as make one efficient write: a view, or small stretches gathered. */
  #nextWrite(first: Segment): Buffer {
    const { bytes, next } = neighbours(first);
    if (next === undefined || bytes.length >= GATHER_FRAME_BYTES) return bytes;
    this.#settle(); // the scratch block is needed, and what it held is in order
    const block = this.#takeScratch();
    let filled = 0;
    for (let part: Segment | undefined = first; part !== undefined; part = part.next) {
      if (part.rest.length > 0) break;
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

  #enqueue(
    queue: LinkQueue,
    type: TypeName | undefined,
    chunk: Buffer,
    start: number,
    end: number,
    count: number,
    dialect: Dialect = this.#dialect,
    rest: readonly Buffer[] = NO_REST,
  ): void {
    let [from, to, left] = [start, end, count];
    if (!queue.hasRoom(end - start, count)) {
      [from, to, left] = this.#backlog.fit(queue, dialect, chunk, start, end, count);
    }
    const length = to - from;
    if (length === 0 || !this.#backlog.enter(queue, length, left)) return;
    if (length > GATHER_FRAME_BYTES) {
      this.#segments.append(queue, type, dialect, chunk, from, to, rest, left);
    } else if (this.#write === undefined || this.#isFull) {
      // Nothing of it can leave in this turn: it goes where it would be settled.
      this.#segments.store(queue, type, dialect, chunk, from, to, left);
    } else this.#gather(queue, type, dialect, chunk, from, to, left);
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
    const last = this.#segments.last;
    if (
      last?.queue === queue &&
      last.chunk === block &&
      last.end === at &&
      !last.partial &&
      last.dialect === dialect
    ) {
      last.end = this.#scratchFilled;
      last.count += count;
    } else {
      const to = this.#scratchFilled;
      this.#segments.append(queue, type, dialect, block, at, to, NO_REST, count);
    }
  }

  #takeScratch(): Buffer {
    this.#scratch ??= this.#pool.takeBlock();
    return this.#scratch;
  }

  /** Moves what still lies in the scratch block, or pins too large a chunk, into its queue's own blocks. */
  #settle(): void {
    for (let segment = this.#segments.unsettled; segment !== undefined; segment = segment.next) {
      const { chunk } = segment;
      if (chunk === this.#scratch || this.#pool.translator.owns(chunk))
        copyIntoBlock(segment, this.#pool);
      else if (segment.block !== undefined || !slim(segment, this.#pool)) continue;
      this.#segments.merge(segment);
    }
    this.#segments.unsettled = undefined;
    this.#scratchFilled = 0;
    if (this.#scratch !== undefined) this.#pool.giveBack(this.#scratch);
    this.#scratch = undefined;
  }

  /**
   * The most frequent case on its own, because it is met for every message when types take turns:
   * a small run behind others of the same link, in the scratch block, with room for it.
   */
  #extend(queue: LinkQueue, run: Run): boolean {
    const last = this.#segments.last;
    if (last === undefined || last.queue !== queue || last.chunk !== this.#scratch) return false;
    const length = run.end - run.start;
    const filled = this.#scratchFilled;
    if (
      filled + length > GATHER_BLOCK_BYTES ||
      last.end !== filled ||
      last.dialect !== run.dialect ||
      !this.#backlog.hasRoom(queue, length, run.count) ||
      !this.#takes(run.dialect, run.longest)
    ) {
      return false;
    }
    run.chunk.copy(last.chunk, filled, run.start, run.end);
    this.#scratchFilled = last.end = filled + length;
    last.count += run.count;
    this.#backlog.enter(queue, length, run.count);
    return true;
  }

  /** Whether messages can go out as they are. */
  #takes(dialect: Dialect, longest: number): boolean {
    return (
      dialect === this.#dialect && (dialect === "native" || longest <= MAX_VEECLE_LINE_BYTES + 1)
    );
  }

  /** Brings a queued segment into the connection's dialect. */
  #adaptSegment(segment: Segment, type: TypeName): void {
    const { queue, dialect, chunk, start, end } = segment;
    const longest = longestOf(segment);
    if (this.#takes(dialect, longest)) return;
    const parts: Buffer[] = [];
    let count = 0;
    this.#adapt(queue, type, dialect, chunk, start, end, longest, (bytes, from, to, adapted) => {
      parts.push(Buffer.from(bytes.subarray(from, to)));
      count += adapted;
    });
    this.#backlog.replace(segment, this.#dialect, Buffer.concat(parts), count);
  }

  /** Hands on messages as this connection takes them; the others are counted as dropped. */
  #adapt(
    queue: LinkQueue,
    type: TypeName,
    dialect: Dialect,
    chunk: Buffer,
    start: number,
    end: number,
    longest: number,
    take: (bytes: Buffer, start: number, end: number, count: number) => void,
  ): void {
    if (dialect === this.#dialect) {
      for (let at = start; at < end;) {
        const next = messageEnd(dialect, chunk, at);
        if (next - at <= MAX_VEECLE_LINE_BYTES + 1) take(chunk, at, next, 1);
        else queue.drop("oversize", 1);
        at = next;
      }
      return;
    }
    const { translator } = this.#pool;
    for (let at = start; at < end;) {
      at = translator.translate(type, dialect, chunk, at, end, longest);
      const { bytes, count, notUtf8, oversize } = translator;
      queue.drop("not_utf8", notUtf8);
      queue.drop("oversize", oversize);
      if (count > 0) take(bytes, 0, bytes.length, count);
    }
  }
}
