// The list of stretches of messages in an outbox, in order of arrival, and of each link among them.
//
// A segment stands in two lists at once: of the outbox, which decides what is sent next, and of its
// queue, which decides what is dropped first. Here is also the memory that segments lie in: their own
// chunks, as long as these keep little more alive than what is queued of them, or blocks of the queue.
// Counts and bytes are the backlog's business.

import { GATHER_BLOCK_BYTES, MAX_PIN_RATIO } from "../limits.ts";
import { type Dialect, messageEnd, NO_REST } from "../message.ts";
import type { LinkQueue, OutboxPool, Segment } from "../queue.ts";
import type { TypeName } from "../message/typename.ts";

/** Segments in order of arrival. */
export class SegmentList {
  first: Segment | undefined;
  last: Segment | undefined;
  /** The first one that came in this turn, and still lies where it came. */
  unsettled: Segment | undefined;
  readonly #pool: OutboxPool;

  constructor(pool: OutboxPool) {
    this.#pool = pool;
  }

  append(
    queue: LinkQueue,
    type: TypeName | undefined,
    dialect: Dialect,
    chunk: Buffer,
    start: number,
    end: number,
    rest: readonly Buffer[],
    count: number,
  ): Segment {
    const segment: Segment = {
      queue,
      dialect,
      type,
      chunk,
      block: undefined,
      start,
      end,
      rest,
      count,
      partial: false,
      previous: this.last,
      next: undefined,
      previousOfQueue: queue.last,
      nextOfQueue: undefined,
    };
    if (this.last === undefined) this.first = segment;
    else this.last.next = segment;
    this.last = segment;
    if (queue.last === undefined) queue.first = segment;
    else queue.last.nextOfQueue = segment;
    queue.last = segment;
    this.unsettled ??= segment;
    return segment;
  }

  /** Appends a copy, in a block of the queue. */
  store(
    queue: LinkQueue,
    type: TypeName | undefined,
    dialect: Dialect,
    chunk: Buffer,
    start: number,
    end: number,
    count: number,
  ): void {
    const { last, unsettled } = this;
    const { block } = queue;
    if (
      block !== undefined &&
      last?.block === block &&
      last.end === block.filled &&
      block.filled + end - start <= block.bytes.length &&
      last.dialect === dialect &&
      !last.partial
    ) {
      block.filled += chunk.copy(block.bytes, block.filled, start, end);
      last.end = block.filled;
      last.count += count;
      return;
    }
    copyIntoBlock(this.append(queue, type, dialect, chunk, start, end, NO_REST, count), this.#pool);
    this.unsettled = unsettled;
  }

  /** Takes a segment out of both lists; its own pointers stay as they are. */
  remove(segment: Segment): void {
    const { queue, previous, next, previousOfQueue, nextOfQueue } = segment;
    if (previous === undefined) this.first = next;
    else previous.next = next;
    if (next === undefined) this.last = previous;
    else next.previous = previous;
    if (previousOfQueue === undefined) queue.first = nextOfQueue;
    else previousOfQueue.nextOfQueue = nextOfQueue;
    if (nextOfQueue === undefined) queue.last = previousOfQueue;
    else nextOfQueue.previousOfQueue = previousOfQueue;
    if (this.unsettled === segment) this.unsettled = next;
    if (queue.first === undefined) abandonBlock(queue, this.#pool);
    leaveBlock(segment, this.#pool);
  }

  /** Splits off what stands behind the first message, which ends at `end`. */
  splitFirst(segment: Segment, end: number): void {
    const rest: Segment = {
      ...segment,
      start: end,
      count: segment.count - 1,
      partial: false,
      previous: segment,
      previousOfQueue: segment,
    };
    if (rest.block !== undefined) rest.block.segments++;
    segment.end = end;
    segment.count = 1;
    segment.next = rest;
    segment.nextOfQueue = rest;
    if (rest.next === undefined) this.last = rest;
    else rest.next.previous = rest;
    if (rest.nextOfQueue === undefined) rest.queue.last = rest;
    else rest.nextOfQueue.previousOfQueue = rest;
  }

  /** Joins a segment with the one before it if they are neighbours in every respect. */
  merge(segment: Segment): void {
    const { previous } = segment;
    if (
      previous?.queue === segment.queue &&
      previous.chunk === segment.chunk &&
      previous.end === segment.start &&
      previous.dialect === segment.dialect &&
      !previous.partial
    ) {
      this.remove(segment); // its block stays: the one before lies in it too
      previous.end = segment.end;
      previous.count += segment.count;
    }
  }
}

/** Moves the beginning of a segment to `start`, and past the pieces that end before it. */
export function moveStart(segment: Segment, start: number): void {
  segment.start = start;
  while (segment.start >= segment.chunk.length) {
    const [next, ...rest] = segment.rest;
    if (next === undefined) return;
    segment.start -= segment.chunk.length;
    segment.end -= segment.chunk.length;
    segment.chunk = next;
    segment.rest = rest;
  }
}

/** A view of a segment, and of those behind it, as far as they stand side by side in memory. */
export function neighbours(first: Segment): { bytes: Buffer; next: Segment | undefined } {
  const { chunk, start } = first;
  let end = chunkEnd(first);
  let next = first.rest.length > 0 ? undefined : first.next;
  while (
    next !== undefined &&
    next.chunk.byteOffset + next.start === chunk.byteOffset + end &&
    next.chunk.buffer === chunk.buffer
  ) {
    end += chunkEnd(next) - next.start;
    next = next.rest.length > 0 ? undefined : next.next;
  }
  if (start === 0 && end === chunk.length) return { bytes: chunk, next };
  const isWithin = end <= chunk.length;
  const bytes = isWithin
    ? chunk.subarray(start, end)
    : Buffer.from(chunk.buffer, chunk.byteOffset + start, end - start);
  return { bytes, next };
}

/** Where a segment, or its first piece, ends in its chunk. */
function chunkEnd({ chunk, end }: Segment): number {
  return Math.min(end, chunk.length);
}

/** Copies a segment behind what its queue has already, in blocks that grow with the queue. */
export function copyIntoBlock(segment: Segment, pool: OutboxPool): void {
  const { queue, chunk, start, end } = segment;
  const length = end - start;
  let { block } = queue;
  if (block === undefined || block.filled + length > block.bytes.length) {
    const size = Math.max(Math.min(Math.max(queue.queuedBytes, 4096), GATHER_BLOCK_BYTES), length);
    const bytes = size === GATHER_BLOCK_BYTES ? pool.takeBlock() : Buffer.allocUnsafeSlow(size);
    abandonBlock(queue, pool);
    block = queue.block = { bytes, filled: 0, segments: 0 };
  }
  const at = block.filled;
  block.filled += chunk.copy(block.bytes, at, start, end);
  leaveBlock(segment, pool); // not earlier: it may be this one
  block.segments++;
  segment.block = block;
  segment.chunk = block.bytes;
  segment.start = at;
  segment.end = block.filled;
}

/** A segment lies elsewhere from now on, or nowhere. */
export function leaveBlock(segment: Segment, pool: OutboxPool): void {
  const { block, queue } = segment;
  if (block === undefined) return;
  segment.block = undefined;
  if (--block.segments === 0 && queue.block !== block) pool.giveBack(block.bytes);
}

/** A queue copies nothing more into its block. */
function abandonBlock(queue: LinkQueue, pool: OutboxPool): void {
  const { block } = queue;
  queue.block = undefined;
  if (block?.segments === 0) pool.giveBack(block.bytes);
}

/** Copies what keeps more alive than it may; returns whether there was such a thing. */
export function slim(segment: Segment, pool: OutboxPool): boolean {
  const { chunk, start, end, rest } = segment;
  if (rest.length === 0) {
    if (!isThin(chunk, segment)) return false;
    copyIntoBlock(segment, pool);
    return true;
  }
  const pieces = [chunk.subarray(start), ...rest];
  const own = pieces.map((piece) => (isThin(piece, segment) ? copyOf(piece) : piece));
  if (own.every((piece, i) => piece === pieces[i])) return false;
  [segment.chunk, ...segment.rest] = own as [Buffer, ...Buffer[]];
  segment.start = 0;
  segment.end = end - start;
  return true;
}

/** What is left at the front of a queue must not keep alive what is gone. */
export function slimFront(front: Segment | undefined, pool: OutboxPool): void {
  if (front === undefined) return;
  if (front.rest.length === 0 && front.chunk.buffer.byteLength <= GATHER_BLOCK_BYTES) return;
  let segment: Segment | undefined = front;
  while (segment !== undefined && slim(segment, pool)) segment = segment.nextOfQueue;
}

/** Whether the queue of a segment has too little of the memory in which a piece of it lies. */
function isThin({ buffer }: Buffer, segment: Segment): boolean {
  let bytes = 0;
  for (let one = segment.previousOfQueue; one !== undefined; one = one.previousOfQueue) {
    const more = bytesOn(one, buffer);
    if (more === 0) break;
    bytes += more;
  }
  for (let one: Segment | undefined = segment; one !== undefined; one = one.nextOfQueue) {
    const more = bytesOn(one, buffer);
    if (more === 0) break;
    bytes += more;
  }
  return buffer.byteLength > MAX_PIN_RATIO * bytes;
}

/** How many bytes of a segment lie in this memory. */
function bytesOn(segment: Segment, memory: ArrayBufferLike): number {
  let bytes = segment.chunk.buffer === memory ? chunkEnd(segment) - segment.start : 0;
  for (const piece of segment.rest) if (piece.buffer === memory) bytes += piece.length;
  return bytes;
}

function copyOf(piece: Buffer): Buffer {
  const own = Buffer.allocUnsafeSlow(piece.length);
  piece.copy(own);
  return own;
}

/** The length of the longest message of a segment. */
export function longestOf({ dialect, chunk, start, end }: Segment): number {
  let longest = 0;
  for (let at = start; at < end;) {
    const next = messageEnd(dialect, chunk, at);
    longest = Math.max(longest, next - at);
    at = next;
  }
  return longest;
}
