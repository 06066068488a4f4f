// What waits for one target, and the accounts of it: whatever changes a count of a link is here.
//
// Messages leave in the order in which they came, whatever their link. A queue over its bound drops
// what its policy says; where there is a choice, its own messages pay. A message whose beginning is
// sent is never dropped but with its connection.

import { type Dialect, messageEnd, NO_REST } from "../message.ts";
import {
  type DropReason,
  LinkQueue,
  type OutboxPool,
  type QueueOwner,
  type Segment,
} from "../queue.ts";
import { leaveBlock, moveStart, SegmentList, slimFront } from "./segments.ts";

/** Some of the messages that came: where they begin and end, and how many they are. */
type Part = [start: number, end: number, count: number];

/** The unsent messages of one target. */
export class Backlog implements QueueOwner {
  readonly segments: SegmentList;
  /** Control messages of ours: few and small, they have no bound of their own. */
  readonly control: LinkQueue = new LinkQueue();
  readonly #pool: OutboxPool;

  constructor(pool: OutboxPool) {
    this.#pool = pool;
    this.segments = new SegmentList(pool);
  }

  /** Which of the messages in `chunk[start, end)` a queue takes that has no room for all; it drops the others, or its own. */
  fit(
    queue: LinkQueue,
    dialect: Dialect,
    chunk: Buffer,
    start: number,
    end: number,
    count: number,
  ): Part {
    const { onFull, maxBytes, maxMessages } = queue.settings;
    let part: Part = [start, end, count];
    if (onFull === "drop-oldest") part = newestThatFit(queue, dialect, chunk, ...part);
    else if (onFull === "drop-newest") part = oldestThatFit(queue, dialect, chunk, start, count);
    const [from, to, left] = part;
    queue.drop("full", count - left);
    if (left > 0 && onFull === "drop-oldest") {
      const bytes = queue.queuedBytes + to - from - maxBytes;
      this.shed(queue, bytes, queue.queued + left - maxMessages);
    }
    return part;
  }

  /** Counts messages as queued that are about to be appended; false if all queues together are full: they are dropped. */
  enter(queue: LinkQueue, bytes: number, count: number): boolean {
    if (queue !== this.control) {
      if (!this.#pool.makeRoom(bytes)) {
        queue.drop("full", count);
        return false;
      }
      if (queue.owner === undefined) {
        queue.owner = this;
        this.#pool.enter(queue);
      }
      this.#pool.usedBytes += bytes;
    }
    queue.queued += count;
    queue.queuedBytes += bytes;
    return true;
  }

  /** Whether more messages can be put behind the last ones of a queue, without anybody dropping any. */
  hasRoom(queue: LinkQueue, bytes: number, count: number): boolean {
    return queue.hasRoom(bytes, count) && this.#pool.usedBytes + bytes <= this.#pool.maxBytes;
  }

  /** The kernel took so many bytes more. */
  advance(bytes: number): void {
    for (let left = bytes; left > 0;) {
      const segment = this.segments.first as Segment;
      const length = segment.end - segment.start;
      if (left >= length) {
        left -= length;
        segment.queue.delivered += segment.count;
        this.#unlink(segment);
        continue;
      }
      const stop = segment.start + left;
      if (!segment.partial) this.#deliverUpTo(segment, stop);
      this.#forgetBytes(segment.queue, left);
      moveStart(segment, stop);
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
    this.segments.splitFirst(segment, end);
  }

  /** Drops the oldest whole messages of a queue until so many bytes and messages are gone; returns the bytes. */
  shed(queue: LinkQueue, bytes: number, messages: number = 0): number {
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
    slimFront(queue.first, this.#pool);
    return freed;
  }

  /** Puts other bytes in the place of messages that mean the same, less those that were dropped. */
  replace(segment: Segment, dialect: Dialect, bytes: Buffer, count: number): void {
    const { queue } = segment;
    queue.queued += count - segment.count;
    this.#forgetBytes(queue, segment.end - segment.start - bytes.length);
    leaveBlock(segment, this.#pool);
    segment.dialect = dialect;
    segment.chunk = bytes;
    segment.start = 0;
    segment.end = bytes.length;
    segment.rest = NO_REST;
    segment.count = count;
    if (count === 0) this.#unlink(segment);
  }

  /** Drops what is queued of one link, but for a message whose beginning is sent. */
  forget(queue: LinkQueue): void {
    for (let segment = queue.first; segment !== undefined;) {
      const next = segment.nextOfQueue;
      if (!segment.partial) this.#discard(segment, "target_gone");
      segment = next;
    }
    slimFront(queue.first, this.#pool);
  }

  /** Drops what belongs to a connection that is gone: a message that was cut, and what we had to say. */
  disconnect(): void {
    const { first } = this.segments;
    if (first?.partial === true) {
      this.#discard(first, "not_connected");
      slimFront(first.queue.first, this.#pool);
    }
    while (this.control.first !== undefined) this.#discard(this.control.first, "not_connected");
  }

  /** Drops everything. */
  clear(): void {
    while (this.segments.first !== undefined) this.#discard(this.segments.first, "target_gone");
  }

  #discard(segment: Segment, reason: DropReason): void {
    const { queue, count } = segment;
    this.#unlink(segment);
    if (queue !== this.control) queue.drop(reason, count);
  }

  #forgetBytes(queue: LinkQueue, bytes: number): void {
    queue.queuedBytes -= bytes;
    if (queue === this.control) return;
    this.#pool.usedBytes -= bytes;
    queue.letGo();
  }

  /** Takes a segment out of the lists and out of the counts of what is queued. */
  #unlink(segment: Segment): void {
    const { queue } = segment;
    this.segments.remove(segment);
    queue.queued -= segment.count;
    this.#forgetBytes(queue, segment.end - segment.start);
  }
}

/** The newest messages that fit if the queue gives up its own, but for one whose beginning is sent. */
function newestThatFit(
  queue: LinkQueue,
  dialect: Dialect,
  chunk: Buffer,
  start: number,
  end: number,
  count: number,
): Part {
  const { maxBytes, maxMessages } = queue.settings;
  const cut = queue.first?.partial === true ? queue.first : undefined;
  const roomBytes = maxBytes - (cut === undefined ? 0 : cut.end - cut.start);
  const room = maxMessages - (cut === undefined ? 0 : 1);
  let from = start;
  let left = count;
  while (left > 0 && (end - from > roomBytes || left > room)) {
    from = messageEnd(dialect, chunk, from);
    left--;
  }
  return [from, end, left];
}

/** The oldest messages that fit behind what the queue has. */
function oldestThatFit(
  queue: LinkQueue,
  dialect: Dialect,
  chunk: Buffer,
  start: number,
  count: number,
): Part {
  let to = start;
  let kept = 0;
  while (kept < count) {
    const next = messageEnd(dialect, chunk, to);
    if (!queue.hasRoom(next - start, kept + 1)) break;
    to = next;
    kept++;
  }
  return [start, to, kept];
}
