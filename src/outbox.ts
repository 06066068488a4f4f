// Unsent bytes of one connection: what goes out next, what is dropped, what is copied.
//
// Pure: it is handed a `write` and owns no socket. Messages leave in the order in which they came,
// whatever their link; each link has its own bound and accounts, in a `LinkQueue`. Within one turn
// small messages are gathered in a scratch block, so that a target costs one system call; large ones
// are handed on as views. What is left after a write is settled: copied, or kept as a view that pins
// little more than itself.

import {
  GATHER_BLOCK_BYTES,
  GATHER_FRAME_BYTES,
  MAX_PIN_RATIO,
  MAX_VEECLE_LINE_BYTES,
} from "./limits.ts";
import { type Dialect, messageEnd, type Run } from "./message.ts";
import { copyIntoBlock, longestOf, newestThatFit, oldestThatFit, SegmentList } from "./segments.ts";
import type { TypeName } from "./typename.ts";
import {
  type DropReason,
  LinkQueue,
  type OutboxPool,
  type QueueOwner,
  type Segment,
  type Target,
} from "./queue.ts";

/** The unsent messages of one instance. */
export class Outbox implements Target, QueueOwner {
  isTouched = false;
  readonly #pool: OutboxPool;
  /** Control messages of ours: few and small, they have no bound of their own. */
  readonly #control: LinkQueue = new LinkQueue();
  #write: ((bytes: Buffer) => number) | undefined;
  #dialect: Dialect = "veecle";
  #isClosed = false;
  #isFull = false;
  readonly #segments: SegmentList = new SegmentList();
  #scratch: Buffer | undefined;
  #scratchFilled = 0;
  /** The first segment that still lies in the scratch block or in somebody's chunk. */
  #unsettled: Segment | undefined;

  constructor(pool: OutboxPool) {
    this.#pool = pool;
  }

  get isEmpty(): boolean {
    return this.#segments.first === undefined;
  }

  /**
   * From now on writes through `write`, which returns how many bytes it took, 0 or less if none.
   * What is queued is translated, except for a message whose beginning is sent already.
   */
  attach(dialect: Dialect, write: (bytes: Buffer) => number): void {
    this.#write = write;
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
      if (excess > 0 && queue.settings.onFull !== "block") this.#shed(queue, excess, 0);
    }
    this.#pool.makeRoom(0);
    this.flush();
  }

  /** The connection is gone: a message that was cut is dropped, the others wait for the next connection. */
  detach(): void {
    this.#write = undefined;
    if (this.#segments.first?.partial === true)
      this.#discard(this.#segments.first, "not_connected");
    while (this.#control.first !== undefined) this.#discard(this.#control.first, "not_connected");
  }

  /** Accepts messages again, as it does from the beginning. */
  open(): void {
    this.#isClosed = false;
  }

  /** Drops everything; what comes from now on is dropped as `not_connected`. */
  close(): void {
    this.#isClosed = true;
    while (this.#segments.first !== undefined) this.#discard(this.#segments.first, "target_gone");
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
    if (this.#extend(queue, run)) return;
    const { type, dialect, chunk, start, end, count, longest } = run;
    if (this.#write === undefined || this.#takes(dialect, longest)) {
      this.#enqueue(queue, type, chunk, start, end, count, dialect);
    } else {
      this.#adapt(queue, type, dialect, chunk, start, end, longest, (bytes, from, to, adapted) => {
        this.#enqueue(queue, type, bytes, from, to, adapted);
        if (to - from > GATHER_FRAME_BYTES) this.flush(); // the translator needs its block again
      });
    }
  }

  shed(queue: LinkQueue, bytes: number): number {
    return this.#shed(queue, bytes, 0);
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
    while (this.#segments.first !== undefined && this.#write !== undefined && !this.#isFull) {
      const bytes = this.#nextWrite(this.#segments.first);
      const taken = this.#write(bytes);
      if (taken > 0) this.#advance(taken);
      this.#isFull = taken < bytes.length;
    }
    this.#settle();
    this.#unpin();
  }

  /** What is left of a large chunk must not keep all of it. */
  #unpin(): void {
    const chunk = this.#segments.first?.chunk;
    if (chunk === undefined || chunk.buffer.byteLength <= GATHER_BLOCK_BYTES) return;
    let length = 0;
    let end = this.#segments.first;
    for (; end?.chunk === chunk; end = end.next) length += end.end - end.start;
    if (chunk.buffer.byteLength <= MAX_PIN_RATIO * length) return;
    for (let segment = this.#segments.first; segment !== undefined && segment !== end;) {
      copyIntoBlock(segment);
      segment = segment.next;
    }
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
      const segment = this.#segments.first as Segment;
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
    this.#segments.splitFirst(segment, end);
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
    let to = end;
    let left = count;
    if (!queue.hasRoom(end - start, count)) {
      const { onFull } = queue.settings;
      if (onFull === "drop-oldest") {
        [from, left] = newestThatFit(queue, dialect, chunk, start, end, count);
      } else if (onFull === "drop-newest") {
        [to, left] = oldestThatFit(queue, dialect, chunk, start, count);
      }
      queue.drop("full", count - left);
      if (left === 0) return;
      if (onFull === "drop-oldest") {
        const { maxBytes, maxMessages } = queue.settings;
        this.#shed(
          queue,
          queue.queuedBytes + to - from - maxBytes,
          queue.queued + left - maxMessages,
        );
      }
    }
    const length = to - from;
    const isOurs = queue === this.#control;
    if (
      !isOurs &&
      this.#pool.usedBytes + length > this.#pool.maxBytes &&
      !this.#pool.makeRoom(length)
    ) {
      queue.drop("full", left);
      return;
    }
    if (queue.owner === undefined && !isOurs) {
      queue.owner = this;
      this.#pool.enter(queue);
    }
    queue.queued += left;
    queue.queuedBytes += length;
    if (!isOurs) this.#pool.usedBytes += length;
    if (length > GATHER_FRAME_BYTES)
      this.#note(this.#segments.append(queue, type, dialect, chunk, from, to, left));
    else this.#gather(queue, type, dialect, chunk, from, to, left);
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
    } else
      this.#note(
        this.#segments.append(queue, type, dialect, block, at, this.#scratchFilled, count),
      );
  }

  #note(segment: Segment): void {
    this.#unsettled ??= segment;
  }

  #takeScratch(): Buffer {
    this.#scratch ??= this.#pool.takeBlock();
    return this.#scratch;
  }

  /** Moves what still lies in the scratch block, or pins too large a chunk, into its queue's own blocks. */
  #settle(): void {
    for (let segment = this.#unsettled; segment !== undefined; segment = segment.next) {
      const { chunk } = segment;
      if (
        chunk === this.#scratch ||
        this.#pool.translator.owns(chunk) ||
        chunk.buffer.byteLength > MAX_PIN_RATIO * (segment.end - segment.start)
      ) {
        copyIntoBlock(segment);
        this.#segments.merge(segment);
      }
    }
    this.#unsettled = undefined;
    this.#scratchFilled = 0;
    if (this.#scratch !== undefined) this.#pool.giveBack(this.#scratch);
    this.#scratch = undefined;
  }

  /** Drops the oldest whole messages of a queue until so many bytes and messages are gone; returns the bytes. */
  #shed(queue: LinkQueue, bytes: number, messages: number): number {
    let freed = 0;
    let count = 0;
    let segment = queue.first?.partial === true ? queue.first.nextOfQueue : queue.first;
    while (segment !== undefined && (freed < bytes || count < messages)) {
      const next: Segment | undefined = segment.nextOfQueue;
      const isWhole =
        segment.end - segment.start <= bytes - freed || segment.count <= messages - count;
      if (isWhole) {
        freed += segment.end - segment.start;
        count += segment.count;
        this.#unlink(segment);
      } else {
        const start = segment.start;
        let dropped = 0;
        while (freed + segment.start - start < bytes || count + dropped < messages) {
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
    if (queue === this.#control) return;
    this.#pool.usedBytes -= bytes;
    queue.letGo();
  }

  /** Takes a segment out of the lists and out of the counts of what is queued. */
  #unlink(segment: Segment): void {
    const { queue } = segment;
    if (this.#unsettled === segment) this.#unsettled = segment.next;
    this.#segments.remove(segment);
    if (queue.first === undefined) queue.block = undefined;
    queue.queued -= segment.count;
    this.#forgetBytes(queue, segment.end - segment.start);
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
      !queue.hasRoom(length, run.count) ||
      this.#pool.usedBytes + length > this.#pool.maxBytes ||
      !this.#takes(run.dialect, run.longest)
    ) {
      return false;
    }
    run.chunk.copy(last.chunk, filled, run.start, run.end);
    this.#scratchFilled = last.end = filled + length;
    last.count += run.count;
    queue.queued += run.count;
    queue.queuedBytes += length;
    this.#pool.usedBytes += length;
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
    const length = end - start;
    const longest = longestOf(segment);
    if (this.#takes(dialect, longest)) return;
    const parts: Buffer[] = [];
    let count = 0;
    this.#adapt(queue, type, dialect, chunk, start, end, longest, (bytes, from, to, adapted) => {
      parts.push(Buffer.from(bytes.subarray(from, to)));
      count += adapted;
    });
    const bytes = Buffer.concat(parts);
    queue.queued += count - segment.count;
    this.#forgetBytes(queue, length - bytes.length);
    segment.dialect = this.#dialect;
    segment.chunk = bytes;
    segment.start = 0;
    segment.end = bytes.length;
    segment.count = count;
    if (count === 0) this.#unlink(segment);
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
